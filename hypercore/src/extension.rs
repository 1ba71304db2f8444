//! Messages of one's own between the peers of a core, beside those of the protocol.

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use async_channel::{Receiver, Sender};
use bytes::Bytes;
use futures_lite::Stream;

use crate::{
    Hypercore,
    codec::{Codec, CodecError},
    error::{Error, Result},
    event::PeerId,
    shared::Shared,
};

/// Messages that wait to be received, before new ones are dropped: 16 MiB of the longest.
const INBOX: usize = 256;

/// Declared by all peers of this crate. Whoever declares it answers requests in the order in which
/// they come, and goes by the digest of each alone: what is not in it is sent. Between two who both
/// do, a request can count on the answers to those before it, and a proof among many has about one
/// node (see [`hypercore_merkle::tree_index::digest_ahead`]).
pub(crate) const EXACT_DIGESTS: &str = "hypercore/exact-digests";

/// Declared by all peers of this crate. Whoever declares it keeps a request for a block after its
/// last one, the newest such request of a peer, and answers it as soon as it has that block. So a
/// new block takes half a round trip, and not one and a half.
pub(crate) const NEXT_BLOCK: &str = "hypercore/next-block";

/// What all peers of this crate declare.
pub(crate) const OWN: [&str; 2] = [EXACT_DIGESTS, NEXT_BLOCK];

/// Bytes that wait to be sent to one peer, before new messages to it are refused.
pub(crate) const OUTBOX: usize = 1024 * 1024;

/// An extension that is registered.
#[derive(Debug)]
struct Registration {
    inbox: Sender<(PeerId, Bytes)>,
    missed: Arc<AtomicU64>,
}

/// The extensions of one core.
#[derive(Debug, Default)]
pub(crate) struct Extensions {
    registered: BTreeMap<Arc<str>, Registration>,
}

impl Extensions {
    /// What a peer is told of: those that are registered, and our own.
    pub(crate) fn names(&self, own_extensions: bool) -> Vec<String> {
        let registered = self.registered.keys().map(|name| &**name);
        let own = OWN.into_iter().filter(|_| own_extensions);
        registered.chain(own).map(str::to_owned).collect()
    }

    /// `peer` sent a message of the extension `name`.
    pub(crate) fn receive(&self, name: &str, peer: PeerId, payload: &[u8]) {
        let Some(extension) = self.registered.get(name) else {
            return;
        };
        // A copy, or each would keep all that was received with it while it waits.
        let message = || (peer, Bytes::copy_from_slice(payload));
        if extension.inbox.is_full() || extension.inbox.try_send(message()).is_err() {
            extension.missed.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(crate) fn close(&mut self) {
        self.registered.clear();
    }
}

impl Hypercore {
    /// Registers an extension of the protocol: peers that registered the same name for this core
    /// can exchange messages with it.
    ///
    /// A message is encrypted like everything else on a connection, and neither signed nor
    /// confirmed. It is not stored: those who are not connected never get it, nor those whose
    /// [`PeerOpen`](crate::Event::PeerOpen) has not come yet.
    ///
    /// # Errors
    ///
    /// [`Error::ExtensionExists`]; when the name is longer than 256 bytes or the 255th; when the
    /// core is closed.
    pub fn register_extension(&self, name: &str) -> Result<Extension> {
        let name: Arc<str> = name.into();
        let mut core = self.shared().lock();
        core.log.files()?;
        let registered = &mut core.replicator.extensions.registered;
        if registered.contains_key(&name) || OWN.contains(&&*name) {
            let name = name.to_string();
            return Err(Error::ExtensionExists { name });
        }
        // Otherwise every connection would fail to declare it.
        let limits = hypercore_wire::Limits::default();
        let (names, length) = (limits.extension_names, limits.extension_name);
        let declared = registered.len().saturating_add(OWN.len());
        if declared >= names || name.len() > length {
            return Err(hypercore_wire::Error::TooManyExtensions { names, length }.into());
        }
        let (inbox, messages) = async_channel::bounded(INBOX);
        let missed = Arc::default();
        registered.insert(
            Arc::clone(&name),
            Registration {
                inbox,
                missed: Arc::clone(&missed),
            },
        );
        core.replicator.declare_extensions();
        drop(core);
        let end = Arc::new(End {
            shared: Arc::clone(self.shared()),
            name,
        });
        Ok(Extension {
            end,
            missed,
            messages: Box::pin(messages),
        })
    }
}

/// An extension of the protocol: see [`Hypercore::register_extension`].
///
/// As a stream it gives the messages that come, and who sent them, until the core is closed. Clones
/// share one queue of them. The extension is there until the last clone is dropped.
#[derive(Clone)]
pub struct Extension {
    end: Arc<End>,
    missed: Arc<AtomicU64>,
    messages: Pin<Box<Receiver<(PeerId, Bytes)>>>,
}

impl fmt::Debug for Extension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extension")
            .field("name", &self.end.name)
            .finish_non_exhaustive()
    }
}

/// Dropped with the last clone of an extension.
struct End {
    shared: Arc<Shared>,
    name: Arc<str>,
}

impl Drop for End {
    fn drop(&mut self) {
        let mut core = self.shared.lock();
        core.replicator.extensions.registered.remove(&self.name);
        core.replicator.declare_extensions();
    }
}

impl Extension {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.end.name
    }

    /// Sends `message` to one peer. False if that peer is not connected, does not keep up with what
    /// it was sent, of which at most 1 MiB may wait, or if the message is longer than the 64 KiB that
    /// a peer takes. A peer that does not have the extension ignores the message.
    ///
    /// Longer messages go where both sides allow them, by
    /// [`Limits::extension_message`](crate::wire::Limits::extension_message) of their connections: a
    /// peer breaks off at one that is longer than it allows.
    #[must_use = "it may not have been sent"]
    pub fn send(&self, message: impl Into<Bytes>, peer: PeerId) -> bool {
        let mut core = self.end.shared.lock();
        let peer = core.replicator.peer(peer);
        peer.is_some_and(|peer| peer.send_extension(&self.end.name, message.into()))
    }

    /// Sends `message` to every connected peer, as [`send`](Self::send) does; returns to how many,
    /// whether they have the extension or not.
    pub fn broadcast(&self, message: impl Into<Bytes>) -> usize {
        let message = message.into();
        let mut core = self.end.shared.lock();
        let sent = core.replicator.peers_mut().filter_map(|peer| {
            peer.send_extension(&self.end.name, message.clone())
                .then_some(())
        });
        sent.count()
    }

    /// The next message, and who sent it; `None` once the core is closed.
    pub async fn receive(&self) -> Option<(PeerId, Bytes)> {
        self.messages.recv().await.ok()
    }

    /// How many messages were dropped because 256 others waited to be received.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }

    /// This extension with values in place of bytes.
    #[must_use]
    pub fn with_codec<C: Codec>(&self, codec: C) -> TypedExtension<C> {
        TypedExtension {
            extension: self.clone(),
            codec: Arc::new(codec),
        }
    }
}

impl Stream for Extension {
    type Item = (PeerId, Bytes);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.messages.as_mut().poll_next(cx)
    }
}

/// An extension whose messages are values: see [`Extension::with_codec`]. What has nothing to do with
/// values is done with the [extension](Self::extension) itself.
///
/// As a stream it gives the messages that come, as [`receive`](Self::receive) does.
pub struct TypedExtension<C> {
    extension: Extension,
    /// Shared by clones, also where it cannot be cloned.
    codec: Arc<C>,
}

impl<C> Clone for TypedExtension<C> {
    fn clone(&self) -> Self {
        Self {
            extension: self.extension.clone(),
            codec: Arc::clone(&self.codec),
        }
    }
}

impl<C> fmt::Debug for TypedExtension<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedExtension")
            .field("name", &self.extension.name())
            .finish_non_exhaustive()
    }
}

impl<C: Codec> TypedExtension<C> {
    /// The extension below.
    #[must_use]
    pub fn extension(&self) -> &Extension {
        &self.extension
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.extension.name()
    }

    /// How many messages were dropped: see [`Extension::missed`].
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.extension.missed()
    }

    /// Sends `message` to one peer: see [`Extension::send`].
    ///
    /// # Errors
    ///
    /// [`Error::Encode`].
    pub fn send(&self, message: &C::Value, peer: PeerId) -> Result<bool> {
        Ok(self.extension.send(self.encode(message)?, peer))
    }

    /// Sends `message` to every connected peer; returns how many that are.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`].
    pub fn broadcast(&self, message: &C::Value) -> Result<usize> {
        Ok(self.extension.broadcast(self.encode(message)?))
    }

    /// The next message, if it can be decoded, and who sent it; `None` once the core is closed.
    pub async fn receive(&self) -> Option<(PeerId, Result<C::Value, CodecError>)> {
        let (peer, message) = self.extension.receive().await?;
        Some((peer, self.codec.decode(message)))
    }

    fn encode(&self, message: &C::Value) -> Result<Bytes> {
        self.codec.encode(message).map_err(Error::Encode)
    }
}

impl<C: Codec> Stream for TypedExtension<C> {
    type Item = (PeerId, Result<C::Value, CodecError>);

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let message = Pin::new(&mut self.extension).poll_next(cx);
        message.map(|message| message.map(|(peer, message)| (peer, self.codec.decode(message))))
    }
}
