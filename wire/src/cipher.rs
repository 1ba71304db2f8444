//! The stream cipher of the transport (simple-hypercore-protocol `lib/xor.js`).

use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit, StreamCipher};

/// One direction of XSalsa20: the key stream runs on over all bytes after the handshake.
///
/// There is no authentication. Blocks and proofs are signed above; other messages are not, and
/// somebody on the path can flip their bits.
pub(crate) struct Cipher(XSalsa20);

impl Cipher {
    pub(crate) fn new(key: &[u8; 32], nonce: &[u8; 24]) -> Self {
        Self(XSalsa20::new(key.into(), nonce.into()))
    }

    /// Encrypts or decrypts the next bytes of the stream in place.
    pub(crate) fn apply(&mut self, bytes: &mut [u8]) {
        self.0.apply_keystream(bytes);
    }
}
