//! Keys and signatures for serde: hexadecimal digits where people read along, bytes elsewhere.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, Unexpected, Visitor},
};

use crate::signature::{DiscoveryKey, PublicKey, Signature, parse_hex};

struct BytesOrDigits<const N: usize>;

impl<const N: usize> Visitor<'_> for BytesOrDigits<N> {
    type Value = [u8; N];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{N} bytes, or two hexadecimal digits for each")
    }

    fn visit_str<E: de::Error>(self, digits: &str) -> Result<[u8; N], E> {
        parse_hex(digits).ok_or_else(|| E::invalid_value(Unexpected::Str(digits), &self))
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<[u8; N], E> {
        let array = bytes.try_into();
        array.map_err(|_| E::invalid_length(bytes.len(), &self))
    }
}

macro_rules! with_serde {
    ($($name:ident),*) => {$(
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    serializer.serialize_bytes(self.as_ref())
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let bytes = if deserializer.is_human_readable() {
                    deserializer.deserialize_str(BytesOrDigits)?
                } else {
                    deserializer.deserialize_bytes(BytesOrDigits)?
                };
                Ok(Self::from(bytes))
            }
        }
    )*};
}

with_serde!(PublicKey, DiscoveryKey, Signature);
