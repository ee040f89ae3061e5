//! The primitives as we use them are those of their RFCs, at the edges too (after the cases of Project Wycheproof).

use std::vec::Vec;

use super::*;

/// Hex, spaces between.
fn hex<const N: usize>(text: &str) -> [u8; N] {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
    let byte = |pair: &[u8]| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap();
    let bytes: Vec<u8> = digits.chunks(2).map(byte).collect();
    bytes.try_into().expect("as long as it is said to be")
}

fn dh(secret: [u8; 32], public: [u8; 32]) -> Result<[u8; 32], NotContributory> {
    diffie_hellman(&StaticSecret::from(secret), &public).map(|key| *key)
}

/// 2^255 - 19 + `more`, little-endian: a second spelling of `more`.
fn spelled_again(more: u8) -> [u8; 32] {
    let mut bytes = [0xff; 32];
    bytes[0] = 0xed + more;
    bytes[31] = 0x7f;
    bytes
}

#[test]
fn x25519_is_that_of_rfc_7748() {
    for (secret, public, shared) in [
        (
            "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
            "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
            "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
        ),
        (
            "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
            // The top bit is set, and does not count.
            "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
            "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
        ),
    ] {
        assert_eq!(dh(hex(secret), hex(public)), Ok(hex(shared)));
    }
    // §5.2: a thousand times, each result the next key.
    let (mut key, mut point) = ([0; 32], [0; 32]);
    (key[0], point[0]) = (9, 9);
    for _ in 0..1_000 {
        (key, point) = (dh(key, point).unwrap(), key);
    }
    assert_eq!(
        key,
        hex("684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51")
    );
}

#[test]
fn a_point_has_every_spelling_that_rfc_7748_gives_it() {
    let secret = [0x77; 32];
    // 2 to 18: the numbers that have a second spelling below 2^255. Some are on the twist, which X25519 serves alike.
    for number in 2..=18 {
        let mut point = [0; 32];
        point[0] = number;
        let shared = dh(secret, point).expect("of large order");
        for mut other in [point, spelled_again(number)] {
            assert_eq!(dh(secret, other), Ok(shared), "{number}");
            other[31] |= 0x80;
            assert_eq!(dh(secret, other), Ok(shared), "{number}, top bit set");
        }
    }
}

#[test]
fn no_secret_is_made_with_a_point_of_small_order() {
    let order_8 = [
        "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
        "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    ];
    let minus_one: [u8; 32] = {
        let mut bytes = spelled_again(0);
        bytes[0] -= 1;
        bytes
    };
    let mut one = [0; 32];
    one[0] = 1;
    let points = [[0; 32], one, minus_one, spelled_again(0), spelled_again(1)];
    for mut point in points.into_iter().chain(order_8.map(hex)) {
        for secret in [[1; 32], [0x77; 32], [0xff; 32]] {
            assert_eq!(dh(secret, point), Err(NotContributory), "{point:02x?}");
            point[31] |= 0x80;
            assert_eq!(dh(secret, point), Err(NotContributory), "{point:02x?}");
        }
    }
}

#[test]
fn the_mask_is_the_key_stream_of_rfc_8439() {
    // Appendix A.1, test vector 1: key, nonce and block counter are zero.
    let mut text = [0; 64];
    mask(&[0; 32], &[0; 8], &mut text);
    let stream = hex(
        "76b8e0ada0f13d90405d6ae55386bd28bdd219b8a08ded1aa836efcc8b770dc7 \
         da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586",
    );
    assert_eq!(text, stream);
    // V is the first part of the nonce: another V, another stream.
    let mut other = [0; 64];
    mask(&[0; 32], &[1, 0, 0, 0, 0, 0, 0, 0], &mut other);
    assert_ne!(other, stream);
}

/// The cipher behind [`aead_seal`], with the nonce that only the RFC's example has.
#[test]
fn the_aead_is_that_of_rfc_8439() {
    let key: [u8; 32] = core::array::from_fn(|at| 0x80 + at as u8);
    let mut text = *b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.";
    let nonce: [u8; 12] = hex("070000004041424344454647");
    let ad: [u8; 12] = hex("50515253c0c1c2c3c4c5c6c7");
    let tag = ChaCha20Poly1305::new(&key.into())
        .encrypt_inout_detached(&nonce.into(), &ad, text.as_mut_slice().into())
        .unwrap();
    let tag: [u8; 16] = tag.into();
    assert_eq!(tag, hex("1ae10b594f09e26a7e902ecbd0600691"));
    assert_eq!(text[..16], hex::<16>("d31a8d34648e60db7b86afbc53ef7ec2"));
}

#[test]
fn what_is_sealed_opens_and_nothing_else_does() {
    let ad = *b"what it is about";
    // Nothing, less than a block, whole blocks, and the length of a knock.
    for len in [0, 1, 15, 16, 17, 63, 64, 65, 447] {
        let text: Vec<u8> = (0..len).map(|at| at as u8).collect();
        let mut sealed = text.clone();
        let tag = aead_seal(&[1; 32], &ad, &mut sealed);
        let opens = |key: &[u8; 32], ad: &[u8], sealed: &[u8], tag: &[u8; 16]| {
            let mut opened = sealed.to_vec();
            aead_open(key, ad, &mut opened, tag).map(|()| opened)
        };
        assert_eq!(opens(&[1; 32], &ad, &sealed, &tag), Ok(text));
        assert_eq!(opens(&[2; 32], &ad, &sealed, &tag), Err(AeadMismatch));
        assert_eq!(opens(&[1; 32], b"", &sealed, &tag), Err(AeadMismatch));
        for bit in 0..128 {
            let mut other = tag;
            other[bit / 8] ^= 1 << (bit % 8);
            let opened = opens(&[1; 32], &ad, &sealed, &other);
            assert_eq!(opened, Err(AeadMismatch), "bit {bit} of the tag");
        }
        for at in 0..len {
            let mut other = sealed.clone();
            other[at] ^= 1;
            let opened = opens(&[1; 32], &ad, &other, &tag);
            assert_eq!(opened, Err(AeadMismatch), "byte {at} of {len}");
        }
        for at in 0..ad.len() {
            let mut other = ad;
            other[at] ^= 0x80;
            assert_eq!(opens(&[1; 32], &other, &sealed, &tag), Err(AeadMismatch));
        }
        let longer = [&sealed[..], &[0]].concat();
        assert_eq!(opens(&[1; 32], &ad, &longer, &tag), Err(AeadMismatch));
        if let Some((_, shorter)) = sealed.split_last() {
            assert_eq!(opens(&[1; 32], &ad, shorter, &tag), Err(AeadMismatch));
        }
        // What moves from the text to the data beside it is noticed: both lengths are under the tag.
        if let Some((first, rest)) = sealed.split_first() {
            let moved = [&ad[..], &[*first]].concat();
            assert_eq!(opens(&[1; 32], &moved, rest, &tag), Err(AeadMismatch));
        }
    }
}

#[test]
fn extract_and_expand_are_those_of_rfc_5869() {
    let count = |from: u8, len: u8| (from..=from + (len - 1)).collect::<Vec<u8>>();
    // A.1: the salt of 13 bytes, padded to 32 with zeros, keys HMAC alike.
    let mut salt = [0; 32];
    salt[..13].copy_from_slice(&count(0, 13));
    let prk = extract(&salt, &[0x0b; 22]);
    assert_eq!(
        *prk,
        hex("077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5")
    );
    assert_eq!(
        *expand(&prk, "", &count(0xf0, 10)),
        hex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf")
    );
    // A.2: its salt is longer than ours may be; its key and a context of 80 bytes.
    let prk = hex("06a6b88c5853361a06104c9ceb35b45cef760014904671014a193f40c15fc244");
    let okm = hex("b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c");
    assert_eq!(*expand(&prk, "", &count(0xb0, 80)), okm);
    // Label and context are joined and nothing stands between them.
    let split = (core::str::from_utf8(b"\x30\x31").unwrap(), [0x32, 0x33]);
    assert_eq!(expand(&prk, split.0, &split.1), expand(&prk, "", b"0123"));
    // A.3: no salt and no context.
    let prk = extract(&[0; 32], &[0x0b; 22]);
    assert_eq!(
        *prk,
        hex("19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04")
    );
    assert_eq!(
        *expand(&prk, "", &[]),
        hex("8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d")
    );
}

#[test]
fn joined_parts_split_again() {
    let joined: [u8; 5] = join(&[&[1, 2], &[3, 4, 5]]);
    assert_eq!(split::<2, 3, 5>(&joined), (&[1, 2], &[3, 4, 5]));
    assert_eq!(truncate::<3>(&[9; 32]), [9; 3]);
}
