//! How keys, ids and times look in JSON: base64url without padding, hex, Unix milliseconds (SPEC §12).

/// Bytes of a fixed length; decoding is strict (no padding, no stray bits).
pub(super) mod base64url {
    use alloc::borrow::Cow;
    use alloc::boxed::Box;

    use base64ct::{Base64UrlUnpadded, Encoding};
    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(in crate::channel) fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Base64UrlUnpadded::encode_string(bytes))
    }

    pub(in crate::channel) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<Box<[u8; N]>, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let mut bytes = Box::new([0; N]);
        match Base64UrlUnpadded::decode(text.as_bytes(), bytes.as_mut_slice()) {
            Ok(decoded) if decoded.len() == N => Ok(bytes),
            Ok(_) | Err(_) => Err(D::Error::custom(format_args!(
                "expected {N} bytes as base64url without padding"
            ))),
        }
    }
}

/// A session id, as it prints everywhere else.
pub(super) mod session {
    use alloc::borrow::Cow;

    use serde::de::Error as _;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::ids::SessionId;

    pub(in crate::channel) fn serialize<S: Serializer>(
        id: &SessionId,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(in crate::channel) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<SessionId, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let digits = u64::from_str_radix(&text, 16)
            .ok()
            .filter(|_| text.len() == 16);
        digits
            .map(|id| SessionId::from_bytes(id.to_be_bytes()))
            .ok_or_else(|| D::Error::custom("expected a session id of 16 hex digits"))
    }
}

/// An instant, as Unix milliseconds.
pub(super) mod millis {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::time::WallTime;

    pub(in crate::channel) fn serialize<S: Serializer>(
        at: &WallTime,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(at.as_millis())
    }

    pub(in crate::channel) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<WallTime, D::Error> {
        u64::deserialize(deserializer).map(WallTime::from_millis)
    }
}
