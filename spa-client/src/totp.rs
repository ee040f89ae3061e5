//! The phone's secret as the person gets it: an `otpauth://` URI, and that as a QR code for the terminal.

use std::fmt::Write as _;

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use spa_proto::TotpOffer;
use zeroize::Zeroizing;

/// Writes the URI an authenticator reads; `host` names the entry.
#[must_use]
pub fn uri(offer: &TotpOffer, host: &str) -> Zeroizing<String> {
    let mut label = String::new();
    for byte in host.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-') {
            label.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(label, "%{byte:02X}");
        }
    }
    let mut uri = Zeroizing::new(String::with_capacity(256));
    let _ = write!(uri, "otpauth://totp/spa:{label}?secret=");
    base32(offer.secret.expose(), &mut uri);
    let _ = write!(
        uri,
        "&issuer=spa&algorithm=SHA1&digits={}&period={}",
        offer.digits, offer.period
    );
    uri
}

/// Draws the URI in half blocks, dark on light with a quiet zone; `None` if it does not fit any QR code.
#[must_use]
pub fn qr(uri: &str) -> Option<String> {
    let code = QrCode::new(uri).ok()?;
    // Terminals are mostly dark: the light modules are drawn, the dark ones left out.
    Some(
        code.render::<Dense1x2>()
            .dark_color(Dense1x2::Light)
            .light_color(Dense1x2::Dark)
            .quiet_zone(true)
            .build(),
    )
}

/// RFC 4648 §6, without padding, as authenticators want it.
fn base32(bytes: &[u8], out: &mut String) {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    for chunk in bytes.chunks(5) {
        let bits = chunk.iter().enumerate().fold(0_u64, |bits, (index, byte)| {
            bits | u64::from(*byte) << (32 - 8 * index)
        });
        let digits = (chunk.len() * 8).div_ceil(5);
        for digit in 0..digits {
            let value = bits >> (35 - 5 * digit) & 31;
            out.push(
                ALPHABET
                    .get(value as usize)
                    .copied()
                    .map_or('A', char::from),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use spa_proto::TotpSecret;

    use super::*;

    #[test]
    fn base32_is_that_of_the_rfc() {
        let text = |bytes: &[u8]| {
            let mut out = String::new();
            base32(bytes, &mut out);
            out
        };
        for (bytes, expected) in [
            ("", ""),
            ("f", "MY"),
            ("fo", "MZXQ"),
            ("foo", "MZXW6"),
            ("foob", "MZXW6YQ"),
            ("fooba", "MZXW6YTB"),
            ("foobar", "MZXW6YTBOI"),
        ] {
            assert_eq!(text(bytes.as_bytes()), expected);
        }
    }

    #[test]
    fn the_uri_is_what_authenticators_read() {
        let offer = TotpOffer {
            digits: 6,
            period: 30,
            secret: TotpSecret::from_bytes(b"12345678901234567890").expect("20 bytes"),
        };
        assert_eq!(
            uri(&offer, "2001:db8::1").as_str(),
            "otpauth://totp/spa:2001%3Adb8%3A%3A1?secret=GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ&issuer=spa&algorithm=SHA1&digits=6&period=30"
        );
        let qr = qr(&uri(&offer, "gw")).expect("it fits");
        assert!(qr.lines().count() < 30 && qr.contains('█'));
    }
}
