//! Who vouches for what is appended.

use std::{fmt, sync::Arc};

use hypercore_merkle::{
    Block, ChangeSet, KeyPair, PublicKey, Roots, Signature, TreeHead, Verifier, append,
};
use hypercore_storage::FeedFiles;

use crate::error::{Error, Result};

/// The writer of a log whose secret key is not in this process: a hardware module, an agent, a
/// service. A [`KeyPair`] is one, too.
///
/// ```
/// use hypercore::{KeyPair, OpenOptions, PublicKey, Signer};
/// use hypercore::merkle::{Signature, TreeHead};
///
/// struct Agent(KeyPair);
///
/// impl Signer for Agent {
///     fn public_key(&self) -> PublicKey {
///         self.0.public_key()
///     }
///
///     fn sign(
///         &self,
///         head: &TreeHead,
///     ) -> Result<Signature, Box<dyn std::error::Error + Send + Sync>> {
///         // Send `head.signable()` to where the secret is, and wait for 64 bytes.
///         Ok(self.0.sign(head))
///     }
/// }
///
/// # futures_lite::future::block_on(async {
/// let agent = Agent(KeyPair::generate()?);
/// let core = OpenOptions::new().signer(agent).open_memory().await?;
/// core.append("signed elsewhere").await?;
/// # Ok::<_, hypercore::Error>(())
/// # }).unwrap();
/// ```
pub trait Signer: Send + Sync {
    /// The key of the log. Always the same.
    fn public_key(&self) -> PublicKey;

    /// The Ed25519 signature of the 40 bytes of [`TreeHead::signable`], once for each append or
    /// group of appends.
    ///
    /// It is called on a thread for blocking work, with no lock held, and may take its time: reads
    /// and peers go on, other appends and `close` wait for it. To ask something asynchronous, block
    /// on it here.
    ///
    /// # Errors
    ///
    /// Whatever keeps it from signing. The append fails with [`Error::Signer`], and the log stays as
    /// it was.
    // JS: the option `crypto`, with `sign` and `verify`. Here a log is always verified with Ed25519,
    // because every peer does that.
    fn sign(&self, head: &TreeHead) -> Result<Signature, Box<dyn std::error::Error + Send + Sync>>;
}

impl Signer for KeyPair {
    fn public_key(&self) -> PublicKey {
        self.public_key()
    }

    fn sign(&self, head: &TreeHead) -> Result<Signature, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.sign_checked(head)?)
    }
}

/// When the signature of an append is checked: always before it leaves this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checking {
    /// Before it is written.
    AtOnce,
    /// When it is [shown](crate::log::Log::signature), for what is written stays in memory. Until the
    /// next append it is the one that is shown, and afterwards it seldom is.
    WhenShown,
}

impl Checking {
    pub(crate) fn of(files: &FeedFiles) -> Self {
        if files.storage().never_waits() {
            Self::WhenShown
        } else {
            Self::AtOnce
        }
    }
}

/// Who may append.
pub(crate) enum Author {
    /// The secret key is here.
    KeyPair(KeyPair),
    /// It is elsewhere.
    Elsewhere {
        signer: Arc<dyn Signer>,
        verifier: Box<Verifier>,
    },
    /// Nobody signs: the log is static, and not finished.
    Unsigned,
}

impl Clone for Author {
    fn clone(&self) -> Self {
        match self {
            Self::KeyPair(pair) => Self::KeyPair(pair.duplicate()),
            Self::Elsewhere { signer, verifier } => Self::Elsewhere {
                signer: Arc::clone(signer),
                verifier: verifier.clone(),
            },
            Self::Unsigned => Self::Unsigned,
        }
    }
}

impl Author {
    pub(crate) fn elsewhere(signer: impl Signer + 'static) -> Self {
        Self::Elsewhere {
            verifier: Box::new(Verifier::new(&signer.public_key())),
            signer: Arc::new(signer),
        }
    }

    /// The key of the log, if it has one before it is finished.
    pub(crate) fn public_key(&self) -> Option<PublicKey> {
        match self {
            Self::KeyPair(pair) => Some(pair.public_key()),
            Self::Elsewhere { verifier, .. } => Some(*verifier.public_key()),
            Self::Unsigned => None,
        }
    }

    pub(crate) const fn is_unsigned(&self) -> bool {
        matches!(self, Self::Unsigned)
    }

    /// Whether nobody knows how long an append takes.
    pub(crate) const fn is_elsewhere(&self) -> bool {
        matches!(self, Self::Elsewhere { .. })
    }

    /// Appends `blocks` to the log that `roots` stand for, with a signature if somebody signs it.
    pub(crate) fn append(
        &self,
        roots: &Roots,
        blocks: Vec<Block>,
        checking: Checking,
    ) -> Result<ChangeSet> {
        match self {
            Self::KeyPair(pair) if checking == Checking::WhenShown => {
                Ok(append::append_unchecked(roots, blocks, pair)?)
            }
            Self::KeyPair(pair) => Ok(append::append(roots, blocks, pair)?),
            Self::Elsewhere { signer, verifier } => {
                let sign = |head: &TreeHead| signer.sign(head).map_err(Error::Signer);
                append::append_with(roots, blocks, verifier, sign)
            }
            Self::Unsigned => Ok(append::unsigned(roots, blocks)?),
        }
    }

    /// Whether a signature that may not have been checked is right.
    pub(crate) fn has_signed(&self, head: &TreeHead, signature: &Signature) -> bool {
        match self {
            Self::KeyPair(pair) => pair.has_signed(head, signature),
            // Nobody trusts what comes from elsewhere.
            Self::Elsewhere { .. } | Self::Unsigned => true,
        }
    }

    /// Signs a state of the log that it has had before, unless nobody signs it.
    pub(crate) fn sign(&self, head: &TreeHead) -> Result<Option<Signature>> {
        match self {
            Self::KeyPair(pair) => Ok(Some(pair.sign_checked(head)?)),
            Self::Elsewhere { signer, verifier } => {
                let signature = signer.sign(head).map_err(Error::Signer)?;
                if verifier.verify(head, &signature) {
                    return Ok(Some(signature));
                }
                let length = head.length;
                Err(hypercore_merkle::Error::FaultySignature { length }.into())
            }
            Self::Unsigned => Ok(None),
        }
    }
}

impl fmt::Debug for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Author").field(&self.public_key()).finish()
    }
}
