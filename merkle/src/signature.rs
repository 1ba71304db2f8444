//! Keys, signatures and who may make them: Ed25519, as libsodium does it.

use std::array::TryFromSliceError;
use std::fmt;
use std::str::FromStr;

use curve25519_dalek::{EdwardsPoint, Scalar};
use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use sha2::{Digest as _, Sha512};
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::hash::Hex;
use crate::roots::TreeHead;

/// What the discovery key hashes (Hypercore 9 `hypercore-crypto/index.js` discoveryKey).
const DISCOVERY_MESSAGE: &[u8] = b"hypercore";

/// The public key of a log, which is its name.
///
/// Any 32 bytes can be one: the key of a static log is a hash. Only a [`Verifier`] asks whether
/// they are a key that can have signed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The name under which peers look for the log, which does not give the key away.
    #[must_use]
    pub fn discovery_key(&self) -> DiscoveryKey {
        let mut key = [0; 32];
        let hash = blake2b_simd::Params::new()
            .hash_length(32)
            .key(&self.0)
            .hash(DISCOVERY_MESSAGE);
        key.copy_from_slice(hash.as_bytes());
        DiscoveryKey(key)
    }
}

/// The hash of a [`PublicKey`] that may be shown to strangers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiscoveryKey([u8; 32]);

impl DiscoveryKey {
    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The signature of one [`TreeHead`]: 64 bytes.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Signature([u8; 64]);

impl Signature {
    /// The bytes as they are stored and sent.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl TryFrom<&[u8]> for Signature {
    type Error = Error;

    fn try_from(bytes: &[u8]) -> Result<Self> {
        bytes
            .try_into()
            .map(Self)
            .map_err(|_| Error::SignatureLength {
                length: bytes.len(),
            })
    }
}

/// The right to append to a log. Wiped from memory when dropped.
pub struct KeyPair(
    /// Boxed, so that moving the key pair leaves no copy of the secret behind.
    Box<Secret>,
);

struct Secret {
    key: SigningKey,
    /// The same, to check with what `key` has signed.
    copy: SigningKey,
}

impl KeyPair {
    /// A new random key pair.
    ///
    /// # Errors
    /// If the operating system has no random bytes.
    pub fn generate() -> Result<Self> {
        let mut seed = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *seed).map_err(|error| Error::NoRandomness(error.into()))?;
        Ok(Self::from_seed(&seed))
    }

    /// The key pair that grows from `seed`.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(Box::new(Secret {
            key: SigningKey::from_bytes(seed),
            copy: SigningKey::from_bytes(seed),
        }))
    }

    /// The key pair in libsodium's form: the seed, then the public key.
    ///
    /// # Errors
    /// If the two do not belong together. To sign with the wrong public half could reveal the
    /// secret.
    pub fn from_bytes(bytes: &[u8; 64]) -> Result<Self> {
        let (seed, public) = bytes.split_at(32);
        let seed = seed.try_into().map_err(|_| Error::KeyPairMismatch)?;
        // `SigningKey::from_keypair_bytes` does the same and leaves copies on the stack.
        let pair = Self::from_seed(seed);
        if pair.0.key.verifying_key().as_bytes() == public {
            Ok(pair)
        } else {
            Err(Error::KeyPairMismatch)
        }
    }

    /// The key pair in libsodium's form: the seed, then the public key.
    #[must_use]
    pub fn to_bytes(&self) -> Box<Zeroizing<[u8; 64]>> {
        // Boxed, so that moving them leaves no copy of the secret behind.
        let mut bytes = Box::new(Zeroizing::new([0; 64]));
        let (seed, public) = bytes.split_at_mut(32);
        seed.copy_from_slice(self.0.key.as_bytes());
        public.copy_from_slice(self.0.key.verifying_key().as_bytes());
        bytes
    }

    /// The same pair again. Not `Clone`, so that a secret is never copied without notice.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self(Box::new(Secret {
            key: self.0.key.clone(),
            // From the copy: a key that has changed in memory is still noticed.
            copy: self.0.copy.clone(),
        }))
    }

    /// The public half.
    #[must_use]
    pub fn public_key(&self) -> PublicKey {
        PublicKey(self.0.key.verifying_key().to_bytes())
    }

    /// Signs the state of a log. [`sign_checked`](Self::sign_checked) is for what is written or sent.
    #[must_use]
    pub fn sign(&self, head: &TreeHead) -> Signature {
        Signature(self.0.key.sign(&head.signable()).to_bytes())
    }

    /// Signs the state of a log, and checks the signature before anybody sees it: a false one could
    /// betray the secret.
    ///
    /// # Errors
    /// [`Error::FaultySignature`] when this computer miscounts.
    pub fn sign_checked(&self, head: &TreeHead) -> Result<Signature> {
        let signature = self.sign(head);
        let length = head.length;
        self.has_signed(head, &signature)
            .then_some(signature)
            .ok_or(Error::FaultySignature { length })
    }

    /// Whether a signature of this key pair is right: a computer that miscounts must not publish one.
    ///
    /// The signature `(R, s)` is, if `s·B = R + k·A`. The owner knows the `a` in `A = a·B`, and asks
    /// whether `(s − k·a)·B = R`: one product with the base point, which has tables, and half the
    /// time of [`Verifier::verify`]. A seed that has changed in memory is noticed as well: there are two.
    #[must_use]
    pub fn has_signed(&self, head: &TreeHead, signature: &Signature) -> bool {
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        let Some(s) = Scalar::from_canonical_bytes(*signature.s_bytes()).into_option() else {
            return false;
        };
        let digest = Sha512::new()
            .chain_update(signature.r_bytes())
            .chain_update(self.0.copy.verifying_key().as_bytes())
            .chain_update(head.signable())
            .finalize();
        let k = Scalar::from_bytes_mod_order_wide(&digest.into());
        let a = Zeroizing::new(self.0.copy.to_scalar());
        #[expect(
            clippy::arithmetic_side_effects,
            reason = "arithmetic of scalars is modulo the order of the group"
        )]
        let nonce = Zeroizing::new(s - k * *a);
        EdwardsPoint::mul_base(&nonce).compress().as_bytes() == signature.r_bytes()
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair")
            .field("public_key", &self.public_key())
            .finish_non_exhaustive()
    }
}

/// Checks signatures of one log. Parsing a key costs a tenth of a check: keep the verifier.
#[derive(Clone, Debug)]
pub struct Verifier {
    key: PublicKey,
    /// `None` if the key cannot have signed anything.
    point: Option<VerifyingKey>,
}

impl Verifier {
    /// A verifier for the log called `key`. If `key` is no proper Ed25519 key, as that of a static
    /// log need not be, then it accepts no signature.
    #[must_use]
    pub fn new(key: &PublicKey) -> Self {
        // As libsodium, refuse a key not in canonical form. Weak keys, for which anybody can sign,
        // fall through in `verify_strict`.
        let canonical = |point: &VerifyingKey| point.to_edwards().compress().0 == key.0;
        let point = VerifyingKey::from_bytes(&key.0).ok().filter(canonical);
        Self { key: *key, point }
    }

    /// The key of the log.
    #[must_use]
    pub fn public_key(&self) -> &PublicKey {
        &self.key
    }

    /// Whether the owner of the key signed the `hash` and the `length` of `head`. Its `byte_length`
    /// and its `fork` are not looked at.
    ///
    /// Writers before Hypercore 9 signed the tree hash without the length. That form is accepted
    /// too, because the tree hash settles the length (Hypercore 9 `index.js` verifyCompat). So ask
    /// about a head that [`Roots::head`](crate::Roots::head) gave: all of that is bound to its hash.
    /// Of one that came from elsewhere only the hash is certain.
    #[must_use]
    pub fn verify(&self, head: &TreeHead, signature: &Signature) -> bool {
        let Some(point) = &self.point else {
            return false;
        };
        let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
        // `verify_strict` accepts exactly what libsodium does; `verify` would take weak keys.
        point.verify_strict(&head.signable(), &signature).is_ok()
            || point.verify_strict(&head.hash, &signature).is_ok()
    }

    /// Whether `head` is that of the static log with this key, whose key is its tree hash
    /// (Hypercore 9 `index.js` finalize). Nothing but the `hash` is looked at, as in
    /// [`verify`](Self::verify) of an old signature.
    #[must_use]
    pub fn is_static_head(&self, head: &TreeHead) -> bool {
        self.key.0 == head.hash
    }
}

macro_rules! are_bytes {
    ($($name:ident: $size:literal),*) => {$(
        impl From<[u8; $size]> for $name {
            fn from(bytes: [u8; $size]) -> Self {
                Self(bytes)
            }
        }

        impl From<$name> for [u8; $size] {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
    )*};
}

are_bytes!(PublicKey: 32, DiscoveryKey: 32, Signature: 64);

macro_rules! keys_of_slices {
    ($($name:ident),*) => {$(
        /// Of exactly 32 bytes.
        impl TryFrom<&[u8]> for $name {
            type Error = TryFromSliceError;

            fn try_from(bytes: &[u8]) -> Result<Self, TryFromSliceError> {
                bytes.try_into().map(Self)
            }
        }
    )*};
}

keys_of_slices!(PublicKey, DiscoveryKey);

/// Text that is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key has 64 hexadecimal digits")]
pub struct ParseKeyError;

/// The inverse of [`Display`](fmt::Display), in lower or upper case.
impl FromStr for PublicKey {
    type Err = ParseKeyError;

    fn from_str(digits: &str) -> Result<Self, ParseKeyError> {
        parse_hex(digits).map(Self).ok_or(ParseKeyError)
    }
}

/// The inverse of [`Display`](fmt::Display), in lower or upper case.
impl FromStr for DiscoveryKey {
    type Err = ParseKeyError;

    fn from_str(digits: &str) -> Result<Self, ParseKeyError> {
        parse_hex(digits).map(Self).ok_or(ParseKeyError)
    }
}

pub(crate) fn parse_hex<const N: usize>(digits: &str) -> Option<[u8; N]> {
    let digit = |digit: u8| Some(char::from(digit).to_digit(16)? as u8);
    let (pairs, rest) = digits.as_bytes().as_chunks();
    let mut bytes = [0; N];
    if pairs.len() != bytes.len() || !rest.is_empty() {
        return None;
    }
    for (byte, &[high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(bytes)
}

macro_rules! show_as_hex {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                Hex(&self.0).fmt(f)
            }
        }
    )*};
}

show_as_hex!(PublicKey, DiscoveryKey, Signature);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn a_head(hash: [u8; 32], length: u64) -> TreeHead {
        TreeHead {
            fork: 0,
            length,
            byte_length: length,
            hash,
        }
    }

    fn flip(bytes: &mut [u8], bit: usize) {
        bytes[bit / 8] ^= 1 << (bit % 8);
    }

    proptest! {
        #[test]
        fn the_owner_and_a_stranger_judge_a_signature_alike(
            seed: [u8; 32],
            hash: [u8; 32],
            length: u64,
            bit in prop::option::of(0_usize..512),
        ) {
            let pair = KeyPair::from_seed(&seed);
            let head = a_head(hash, length);
            let mut signature = pair.sign(&head);
            if let Some(bit) = bit {
                flip(&mut signature.0, bit);
            }
            let verifier = Verifier::new(&pair.public_key());
            prop_assert_eq!(pair.has_signed(&head, &signature), bit.is_none());
            prop_assert_eq!(verifier.verify(&head, &signature), bit.is_none());
        }

        #[test]
        fn a_key_that_changed_in_memory_signs_nothing(seed: [u8; 32], bit in 0_usize..256) {
            let mut pair = KeyPair::from_seed(&seed);
            let mut changed = seed;
            flip(&mut changed, bit);
            let changed = SigningKey::from_bytes(&changed);
            let head = a_head([1; 32], 1);
            prop_assert!(pair.sign_checked(&head).is_ok());
            pair.0.key = changed;
            prop_assert!(pair.sign_checked(&head).is_err());
        }
    }

    #[test]
    fn other_contents_and_lengths_are_not_signed() {
        let pair = KeyPair::from_seed(&[7; 32]);
        let head = a_head([1; 32], 1);
        let signature = pair.sign_checked(&head).unwrap();
        assert!(!pair.has_signed(&a_head([1; 32], 2), &signature));
        assert!(!pair.has_signed(&a_head([2; 32], 1), &signature));
    }
}
