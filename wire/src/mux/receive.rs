//! What the remote sends.

use bytes::Bytes;

use super::{Local, MessageStream, Mux, Remote, STREAM, is_capable};
use crate::message::BodyRef;
use crate::{Body, Close, Error, Event, Extension, Frame, Message, MessageKind, Open, Problem};

impl Mux {
    /// Takes a whole frame of the remote.
    ///
    /// # Errors
    /// If the remote broke the protocol: the stream is over then.
    pub fn receive<S: MessageStream + ?Sized>(
        &mut self,
        stream: &mut S,
        frame: Bytes,
    ) -> Result<(), Error> {
        let (length, before) = (frame.len(), self.events.len());
        let Some(Frame { channel, body }) = Frame::decode(frame, &self.limits)? else {
            return Ok(());
        };
        match body {
            Body::Open(open) => self.on_open(stream, channel, open),
            Body::Close(close) => self.on_close(stream, channel, close),
            Body::Message(message) => self.on_message(channel, message),
        }?;
        if self.events.len() > before {
            self.events.charge(length);
        }
        Ok(())
    }

    fn on_open<S: MessageStream + ?Sized>(
        &mut self,
        stream: &mut S,
        number: u32,
        open: Open,
    ) -> Result<(), Error> {
        let max = self.limits.channel_number;
        if number == STREAM || number > max {
            return Err(Error::ChannelNumber { id: number, max });
        }
        let discovery_key = open.discovery_key;
        // JS takes a second Open of a channel, and a number for a second channel.
        let taken = self.remote.contains_key(&number) || self.closing.contains(&number);
        if taken || self.is_remote_open(&discovery_key) {
            return Err(Error::DuplicateOpen { id: number });
        }
        let remote = Remote {
            number,
            capability: open.capability,
        };
        if self.discreet {
            self.reveal(stream, &discovery_key, &remote)?;
        }
        let channel = self.channels.entry(discovery_key).or_default();
        let (ours, has_answered) = match &channel.local {
            Some(Local { id, key }) => {
                if !is_capable(stream, key, &remote) {
                    return Err(Error::InvalidCapability);
                }
                (Some(*id), false)
            }
            None => {
                self.unmatched_opens = self.unmatched_opens.saturating_add(1);
                self.unmatched.push_back(discovery_key);
                self.events.push_back(Event::RemoteOpened { discovery_key });
                let mut withdrawn = self.withdrawn.iter();
                let has_answered = withdrawn.any(|withdrawn| {
                    withdrawn.discovery_key == discovery_key
                        && is_capable(stream, &withdrawn.key, &remote)
                });
                (None, has_answered)
            }
        };
        channel.remote = Some(remote);
        self.remote.insert(number, discovery_key);
        if let Some(id) = ours {
            self.opened(id);
        } else if has_answered {
            self.note_verified();
        }
        if self.unmatched.len() > self.limits.unmatched_channels
            && let Some(oldest) = self.unmatched.front().copied()
        {
            self.reject(stream, &oldest)?;
            self.forget(&oldest);
            self.events.push_back(Event::Closed {
                channel: None,
                discovery_key: oldest,
            });
        }
        Ok(())
    }

    /// Opens a channel that the remote does not know of, if it proved to know the key.
    ///
    /// A capability is computed in any case: the time it takes is the same for a log that is here
    /// and for one that is not.
    fn reveal<S: MessageStream + ?Sized>(
        &mut self,
        stream: &mut S,
        discovery_key: &[u8; 32],
        remote: &Remote,
    ) -> Result<(), Error> {
        let reserved = self.reserved.get(discovery_key);
        let local = reserved.and_then(|channel| channel.local.as_ref());
        let key = local.map_or([0; 32], |local| local.key);
        let capable = is_capable(stream, &key, remote);
        let Some(id) = local.map(|local| local.id).filter(|_| capable) else {
            return Ok(());
        };
        self.send_open(stream, id.0, &key)?;
        if let Some(channel) = self.reserved.remove(discovery_key) {
            self.channels.insert(*discovery_key, channel);
        }
        Ok(())
    }

    fn on_close<S: MessageStream + ?Sized>(
        &mut self,
        stream: &mut S,
        number: u32,
        close: Close,
    ) -> Result<(), Error> {
        if self.closing.remove(&number) {
            return Ok(());
        }
        let discovery_key = self.remote.get(&number).copied().or(close.discovery_key);
        let Some(discovery_key) = discovery_key else {
            return Ok(());
        };
        let Some(channel) = self.forget(&discovery_key) else {
            return Ok(());
        };
        self.remember(channel.local.as_ref(), discovery_key);
        let channel = channel.local.map(|local| local.id);
        if let Some(id) = channel {
            self.transmit(stream, id.0, BodyRef::Close(&Close::default()))?;
        }
        self.events.push_back(Event::Closed {
            channel,
            discovery_key,
        });
        Ok(())
    }

    fn on_message(&mut self, number: u32, message: Message) -> Result<(), Error> {
        let Self {
            channels,
            remote,
            extensions,
            events,
            limits,
            ..
        } = self;
        // What is for no channel, or for one that we have not opened, is of no interest.
        let (id, extensions) = if number == STREAM {
            (None, extensions)
        } else {
            let Some(channel) = remote.get(&number).and_then(|key| channels.get_mut(key)) else {
                return Ok(());
            };
            let Some(local) = &channel.local else {
                return Ok(());
            };
            (Some(local.id), &mut channel.extensions)
        };
        match (id, message) {
            (channel, Message::Extension(Extension { id, payload })) => {
                let Some(name) = extensions.name(id) else {
                    return Ok(());
                };
                if payload.len() > limits.extension_message {
                    let problem = Problem::WrongLength {
                        field: 0,
                        length: payload.len(),
                    };
                    return Err(Error::invalid(MessageKind::Extension, problem));
                }
                events.push_back(Event::Extension {
                    channel,
                    name: name.to_owned(),
                    payload,
                });
            }
            (None, Message::Options(options)) => {
                extensions.remote_declared(options.extensions.clone());
                events.push_back(Event::StreamOptions {
                    extensions: options.extensions,
                });
            }
            (None, _) => {}
            (Some(channel), message) => {
                if let Message::Options(options) = &message {
                    extensions.remote_declared(options.extensions.clone());
                }
                events.push_back(Event::Message { channel, message });
            }
        }
        Ok(())
    }
}
