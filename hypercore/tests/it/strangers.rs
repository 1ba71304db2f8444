//! What a remote that does not know the key hears of a core.

use async_std::channel;
use futures_lite::{AsyncReadExt, AsyncWriteExt, future};
use hypercore::{
    DiscoveryKey, Error, Hypercore, ReplicateOptions, Replication, Role,
    wire::{
        self, Body, Close, Frame, Limits, MessageStream, Open, Received, SecureStream,
        SessionOptions,
    },
};

use crate::support::{run, writer};

/// The other end of a [`Replication`], which says whatever it wants to.
struct Stranger {
    stream: SecureStream,
    ours: Replication,
}

impl Stranger {
    async fn new(options: ReplicateOptions) -> Self {
        let ours = Replication::new(Role::Responder, options).unwrap();
        let stream = SecureStream::new(&SessionOptions::new(Role::Initiator).unwrap()).unwrap();
        let mut stranger = Self { stream, ours };
        for _ in 0..3 {
            assert_eq!(stranger.hear().await, []);
        }
        assert!(stranger.stream.is_handshaken());
        stranger
    }

    fn say(&mut self, channel: u32, body: Body) {
        let frame = Frame { channel, body };
        let mut encode = |out: &mut _| frame.encode(out);
        self.stream
            .send(frame.encoded_length(), &mut encode)
            .unwrap();
    }

    /// Opens a core without knowing its key.
    fn open(&mut self, channel: u32, core: DiscoveryKey) {
        let open = Open {
            discovery_key: *core.as_bytes(),
            capability: Some([7; 32]),
        };
        self.say(channel, Body::Open(open));
    }

    /// Says what is to be said, and hears the answer.
    async fn hear(&mut self) -> Vec<Frame> {
        let bytes = self.stream.outgoing().to_vec();
        self.ours.write_all(&bytes).await.unwrap();
        self.stream.sent(bytes.len());
        let mut frames = Vec::new();
        loop {
            let reading = self.ours.read(self.stream.receive_buffer());
            let Some(count) = future::poll_once(reading).await else {
                return frames;
            };
            self.stream.received(count.unwrap()).unwrap();
            while let Some(received) = self.stream.poll().unwrap() {
                if let Received::Frame(frame) = received {
                    frames.extend(Frame::decode(frame, &Limits::default()).unwrap());
                }
            }
        }
    }
}

/// A discreet side tells nobody who does not know the key whether it has a core, also if it adds those
/// that it has when they are opened.
#[test]
fn a_core_that_would_be_added_looks_like_one_that_is_not_here() {
    run(async {
        let (core, other) = (writer(1).await, writer(1).await);
        let name = core.discovery_key();
        let heard = async |live: bool, attached: bool, here: &Hypercore| {
            let (opened, asked) = channel::unbounded();
            let mut options =
                ReplicateOptions::default().on_remote_open(move |key| opened.try_send(key).is_ok());
            (options.live, options.discreet) = (live, true);
            let mut stranger = Stranger::new(options).await;
            if attached {
                stranger.ours.add(here).unwrap();
            }
            let mut heard = Vec::new();
            for channel in [1, 2] {
                stranger.open(channel, name);
                heard.push(stranger.hear().await);
                while let Ok(key) = asked.try_recv() {
                    if key != here.discovery_key() || stranger.ours.add(here).is_err() {
                        stranger.ours.handle().reject(key);
                    }
                }
                heard.push(stranger.hear().await);
                stranger.say(channel, Body::Close(Close::default()));
                heard.push(stranger.hear().await);
            }
            heard
        };
        for live in [true, false] {
            for attached in [true, false] {
                let if_here = heard(live, attached, &core).await;
                let if_not = heard(live, attached, &other).await;
                assert_eq!(if_here, if_not, "live {live}, attached {attached}");
                assert!(!if_here.concat().is_empty(), "it was rejected");
            }
        }
    });
}

/// It is told so when somebody tries to add the core, and not again when it is rejected.
#[test]
fn who_does_not_know_the_key_is_rejected_once() {
    run(async {
        let core = writer(1).await;
        for live in [true, false] {
            let mut options = ReplicateOptions::default().on_remote_open(|_| true);
            options.live = live;
            let mut stranger = Stranger::new(options).await;
            let name = core.discovery_key();
            stranger.open(1, name);
            assert_eq!(stranger.hear().await, []);
            let added = stranger.ours.add(&core);
            assert!(
                matches!(added, Err(Error::Wire(wire::Error::InvalidCapability))),
                "{added:?}"
            );
            let close = Close {
                discovery_key: Some(*name.as_bytes()),
            };
            let heard: Vec<_> = stranger
                .hear()
                .await
                .into_iter()
                .map(|it| it.body)
                .collect();
            assert_eq!(heard, [Body::Close(close)]);
            stranger.ours.handle().reject(name);
            assert_eq!(stranger.hear().await, []);
            assert!(core.peers().is_empty());
        }
    });
}
