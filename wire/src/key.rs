//! Keys, and the hashes that prove one knows them.

use std::fmt;

use blake2b_simd::Params;
use curve25519_dalek::MontgomeryPoint;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::Error;

/// The name under which a log is known to those who may not have its key: BLAKE2b-256 of
/// `hypercore`, keyed with the log's public key (hypercore-crypto `discoveryKey`).
///
/// ```
/// let key = [7; 32];
/// assert_ne!(hypercore_wire::discovery_key(&key), key);
/// ```
#[must_use]
pub fn discovery_key(key: &[u8; 32]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(
        Params::new()
            .hash_length(32)
            .key(key)
            .hash(b"hypercore")
            .as_bytes(),
    );
    hash
}

/// The long-term X25519 key pair by which a peer is recognised in the Noise handshake.
///
/// Not the key pair of a log: that one signs, this one only encrypts.
pub struct StaticKeyPair {
    // Boxed, so that moving the pair leaves no copy of the secret behind.
    secret: Box<Zeroizing<[u8; 32]>>,
    public: [u8; 32],
}

impl StaticKeyPair {
    /// A new random pair.
    ///
    /// # Errors
    /// [`Error::Random`] if the operating system gives no random bytes.
    pub fn generate() -> Result<Self, Error> {
        let mut secret = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *secret).map_err(|_| Error::Random)?;
        Ok(Self::from_secret(&secret))
    }

    /// The pair of a seed, whose secret is BLAKE2b-256 of the seed (libsodium
    /// `crypto_kx_seed_keypair`, which is what simple-hypercore-protocol `keyPair(seed)` calls).
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        secret.copy_from_slice(Params::new().hash_length(32).hash(seed).as_bytes());
        Self::from_secret(&secret)
    }

    /// The pair of a secret key.
    #[must_use]
    pub fn from_secret(secret: &[u8; 32]) -> Self {
        Self {
            secret: boxed(secret),
            public: MontgomeryPoint::mul_base_clamped(*secret).to_bytes(),
        }
    }

    /// The same pair again. Not `Clone`, so that a secret is never copied without notice.
    #[must_use]
    pub fn duplicate(&self) -> Self {
        Self {
            secret: boxed(&self.secret),
            public: self.public,
        }
    }

    /// The key the remote learns in the handshake.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.public
    }

    /// The secret key, to keep: [`from_secret`](Self::from_secret) makes the pair of it again.
    #[must_use]
    pub fn to_secret(&self) -> Box<Zeroizing<[u8; 32]>> {
        boxed(&self.secret)
    }

    pub(crate) fn secret_key(&self) -> &[u8; 32] {
        &self.secret
    }
}

impl fmt::Debug for StaticKeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StaticKeyPair")
            .field("public", &Hex(&self.public))
            .finish_non_exhaustive()
    }
}

/// A way through a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From us to the remote.
    Send,
    /// From the remote to us.
    Receive,
}

/// The two keys that a handshake leaves: one for what we send, one for what we receive.
///
/// Never shown, never cloned, wiped when dropped.
pub struct Split {
    // Boxed, so that moving the split leaves no copy of the keys behind.
    tx: Box<Zeroizing<[u8; 32]>>,
    rx: Box<Zeroizing<[u8; 32]>>,
}

impl Split {
    /// A split from its two keys, as any Noise implementation returns them.
    #[must_use]
    pub fn new(tx: [u8; 32], rx: [u8; 32]) -> Self {
        Self::copy(&Zeroizing::new(tx), &Zeroizing::new(rx))
    }

    /// A split from keys that the caller wipes.
    pub(crate) fn copy(tx: &[u8; 32], rx: &[u8; 32]) -> Self {
        Self {
            tx: boxed(tx),
            rx: boxed(rx),
        }
    }

    /// The proof that its sender knows `key`, bound to this connection and to a direction
    /// (hypercore-crypto `capability` and `remoteCapability`).
    #[must_use]
    pub fn capability(&self, key: &[u8; 32], direction: Direction) -> [u8; 32] {
        let (hash_key, message) = match direction {
            Direction::Send => (&self.rx, &self.tx),
            Direction::Receive => (&self.tx, &self.rx),
        };
        let mut hash = [0; 32];
        hash.copy_from_slice(
            Params::new()
                .hash_length(32)
                .key(&***hash_key)
                .to_state()
                .update(b"hypercore capability")
                .update(&***message)
                .update(key)
                .finalize()
                .as_bytes(),
        );
        hash
    }

    pub(crate) fn key(&self, direction: Direction) -> &[u8; 32] {
        match direction {
            Direction::Send => &self.tx,
            Direction::Receive => &self.rx,
        }
    }
}

impl fmt::Debug for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Split").finish_non_exhaustive()
    }
}

/// A copy of the secret that can be moved without leaving another one behind.
fn boxed(secret: &[u8; 32]) -> Box<Zeroizing<[u8; 32]>> {
    let mut boxed = Box::new(Zeroizing::new([0; 32]));
    boxed.copy_from_slice(secret);
    boxed
}

/// Compares without telling by the time it takes where the first difference is.
pub(crate) fn equal(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.ct_eq(b).into()
}

/// Whether every Diffie-Hellman with `key` gives zero. Clamped scalars are multiples of the
/// cofactor, so one multiplication tells.
pub(crate) fn is_low_order(key: &[u8; 32]) -> bool {
    equal(
        &MontgomeryPoint(*key).mul_clamped([0x55; 32]).to_bytes(),
        &[0; 32],
    )
}

/// Bytes shown as hexadecimal digits.
pub(crate) struct Hex<'a>(pub(crate) &'a [u8]);

impl fmt::Debug for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
