//! Noise XX with the payload of simple-hypercore-protocol (`lib/handshake.js`).
//!
//! ```text
//! initiator                                   responder
//!     |  1: e, payload                             |    58 bytes
//!     | -----------------------------------------> |
//!     |  2: e, ee, s, es, payload                  |   122 bytes
//!     | <----------------------------------------- |
//!     |  3: s, se, payload                         |    90 bytes
//!     | -----------------------------------------> |
//! ```
//!
//! The payload is the nonce of the sender's stream cipher, the same in messages 1 and 3. Noise's
//! own transport ciphers are not used: the two keys go to XSalsa20.

use std::hint::black_box;

use snow::HandshakeState;
use snow::params::NoiseParams;
use zeroize::Zeroizing;

use crate::key::{equal, is_low_order};
use crate::resolver::Resolver;
use crate::{Error, Role, SessionOptions, Split, schema};

/// The suite every Hypercore 9 peer speaks, with an empty prologue.
const SUITE: &str = "Noise_XX_25519_ChaChaPoly_BLAKE2b";

/// One that needs no key to begin with.
const BLANK_SUITE: &str = "Noise_NN_25519_ChaChaPoly_BLAKE2b";

/// What the handshake leaves behind.
pub(crate) struct Agreement {
    pub(crate) split: Split,
    pub(crate) remote_nonce: [u8; 24],
    pub(crate) remote_public_key: [u8; 32],
    pub(crate) handshake_hash: [u8; 64],
}

/// A handshake under way.
pub(crate) struct Handshake {
    // Boxed, so that moving the handshake leaves no copy of its chaining key behind.
    noise: Box<HandshakeState>,
    nonce: [u8; 24],
    max_message: usize,
    expected_remote: Option<[u8; 32]>,
    remote_ephemeral_seen: bool,
    remote_payload: Vec<u8>,
}

impl Handshake {
    pub(crate) fn new(
        options: &SessionOptions,
        fixed_ephemeral: Option<&[u8; 32]>,
    ) -> Result<Self, Error> {
        let suite: NoiseParams = SUITE.parse().map_err(|_| Error::Handshake)?;
        let mut builder = snow::Builder::with_resolver(suite, Box::new(Resolver))
            .local_private_key(options.key_pair.secret_key())
            .map_err(|_| Error::Handshake)?;
        if let Some(ephemeral) = fixed_ephemeral {
            builder = builder.fixed_ephemeral_key_for_testing_only(ephemeral);
        }
        let noise = match options.role {
            Role::Initiator => builder.build_initiator(),
            Role::Responder => builder.build_responder(),
        };
        Ok(Self {
            noise: Box::new(noise.map_err(|_| Error::Random)?),
            nonce: options.nonce,
            max_message: options.limits.handshake_message.min(MAX_NOISE_MESSAGE),
            expected_remote: options.remote_public_key,
            remote_ephemeral_seen: false,
            remote_payload: Vec::new(),
        })
    }

    pub(crate) fn max_message(&self) -> usize {
        self.max_message
    }

    /// The next message to send, if it is our turn.
    pub(crate) fn write(&mut self) -> Result<Option<Vec<u8>>, Error> {
        if self.noise.is_handshake_finished() || !self.noise.is_my_turn() {
            return Ok(None);
        }
        let mut message = vec![0; MAX_OUR_MESSAGE];
        let payload = schema::encode_noise_payload(&self.nonce);
        let length = self
            .noise
            .write_message(&payload, &mut message)
            .map_err(|_| Error::Random)?;
        message.truncate(length);
        Ok(Some(message))
    }

    /// Takes a message of the remote.
    pub(crate) fn read(&mut self, message: &[u8]) -> Result<(), Error> {
        // The remote's first message starts with its ephemeral key. A low-order one is refused
        // before it is mixed into anything.
        if !self.remote_ephemeral_seen {
            let ephemeral = message.first_chunk().ok_or(Error::Handshake)?;
            if is_low_order(ephemeral) {
                return Err(Error::WeakRemoteKey);
            }
            self.remote_ephemeral_seen = true;
        }
        let mut payload = vec![0; message.len()];
        let length = self
            .noise
            .read_message(message, &mut payload)
            .map_err(|_| Error::Handshake)?;
        if length > 0 {
            payload.truncate(length);
            self.remote_payload = payload;
        }
        // As the initiator, before message 3 shows who we are. A responder has shown it in message 2.
        let Some(remote) = self.remote_public_key() else {
            return Ok(());
        };
        if is_low_order(&remote) {
            return Err(Error::WeakRemoteKey);
        }
        match &self.expected_remote {
            Some(expected) if !equal(expected, &remote) => Err(Error::UnexpectedRemoteKey),
            _ => Ok(()),
        }
    }

    /// The result, once all three messages went through.
    pub(crate) fn agreement(&mut self) -> Result<Option<Agreement>, Error> {
        if !self.noise.is_handshake_finished() {
            return Ok(None);
        }
        let remote_public_key = self.remote_public_key().ok_or(Error::Handshake)?;
        let handshake_hash = self
            .noise
            .get_handshake_hash()
            .try_into()
            .map_err(|_| Error::Handshake)?;
        if self.remote_payload.is_empty() {
            return Err(Error::HandshakePayload);
        }
        let remote_nonce = schema::decode_noise_payload(&self.remote_payload)?;
        let keys = Zeroizing::new(self.noise.dangerously_get_raw_split());
        let (from_initiator, from_responder) = &*keys;
        let split = if self.noise.is_initiator() {
            Split::copy(from_initiator, from_responder)
        } else {
            Split::copy(from_responder, from_initiator)
        };
        Ok(Some(Agreement {
            split,
            remote_nonce,
            remote_public_key,
            handshake_hash,
        }))
    }

    fn remote_public_key(&self) -> Option<[u8; 32]> {
        self.noise.get_remote_static()?.try_into().ok()
    }
}

impl Drop for Handshake {
    /// Overwrites the chaining key, from which the keys of the connection follow, with that of a
    /// handshake in which nothing has happened.
    fn drop(&mut self) {
        let blank = BLANK_SUITE.parse().ok().and_then(|suite| {
            let builder = snow::Builder::with_resolver(suite, Box::new(Resolver));
            builder.build_initiator().ok()
        });
        if let Some(blank) = blank {
            *self.noise = blank;
            // Or else nobody would look at what was written.
            black_box(&self.noise);
        }
    }
}

/// Longest message of the Noise protocol framework (section 3).
const MAX_NOISE_MESSAGE: usize = 65535;

/// Room for the longest message we write: an ephemeral key, a static key and a payload of 26 bytes,
/// both encrypted, take 122 bytes.
const MAX_OUR_MESSAGE: usize = 256;
