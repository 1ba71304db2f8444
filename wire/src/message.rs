//! The messages of one channel (simple-hypercore-protocol `schema.proto`).

use bytes::{Buf as _, BufMut, Bytes, BytesMut};

use crate::error::Problem;
use crate::{Error, Limits, schema, varint};

/// The largest number a JS peer can hold exactly: 2^53 - 1.
pub const MAX_NUMBER: u64 = (1 << 53) - 1;

/// One past the largest block number: a block's tree index, twice its number, must be exact in JS.
pub const MAX_BLOCKS: u64 = 1 << 52;

/// The type of a message, as the low four bits of a frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum MessageKind {
    /// Opens a channel.
    Open = 0,
    /// Extensions and settings of the sender.
    Options = 1,
    /// Whether the sender uploads and downloads.
    Status = 2,
    /// Blocks the sender has.
    Have = 3,
    /// Blocks the sender lost.
    Unhave = 4,
    /// Blocks whose Have the sender waits for.
    Want = 5,
    /// Takes a Want back.
    Unwant = 6,
    /// Asks for a block, a hash or a byte position.
    Request = 7,
    /// Takes a Request back.
    Cancel = 8,
    /// A block with its proof.
    Data = 9,
    /// Closes a channel.
    Close = 10,
    /// A message of an extension.
    Extension = 15,
}

impl MessageKind {
    /// The type of a number; `None` for 11 to 14, which are ignored.
    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Open,
            1 => Self::Options,
            2 => Self::Status,
            3 => Self::Have,
            4 => Self::Unhave,
            5 => Self::Want,
            6 => Self::Unwant,
            7 => Self::Request,
            8 => Self::Cancel,
            9 => Self::Data,
            10 => Self::Close,
            15 => Self::Extension,
            _ => return None,
        })
    }
}

impl TryFrom<u8> for MessageKind {
    type Error = UnknownMessageKind;

    fn try_from(number: u8) -> Result<Self, UnknownMessageKind> {
        Self::from_number(number).ok_or(UnknownMessageKind(number))
    }
}

/// A number that no [`MessageKind`] has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not the number of a type of message")]
pub struct UnknownMessageKind(pub u8);

/// A message about the log of one channel.
///
/// Open and Close are not here: [`Mux`](crate::Mux) speaks them itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// See [`Options`].
    Options(Options),
    /// See [`Status`].
    Status(Status),
    /// See [`Have`].
    Have(Have),
    /// See [`Unhave`].
    Unhave(Unhave),
    /// See [`Want`].
    Want(Want),
    /// See [`Unwant`].
    Unwant(Unwant),
    /// See [`Request`].
    Request(Request),
    /// See [`Cancel`].
    Cancel(Cancel),
    /// See [`Data`].
    Data(Data),
    /// See [`Extension`].
    Extension(Extension),
}

/// Opens the sender's side of a channel. Used by [`Mux`](crate::Mux); public for those who look at
/// frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The discovery key of the log.
    pub discovery_key: [u8; 32],
    /// The proof that the sender knows the log's key; absent without Noise.
    pub capability: Option<[u8; 32]>,
}

/// Closes a channel, or refuses one that the receiver opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Close {
    /// Names the channel if the sender never opened it.
    pub discovery_key: Option<[u8; 32]>,
}

/// What the sender supports on this channel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// The names of its extensions, sorted by UTF-16 code units. An extension's number is its
    /// position in this list.
    pub extensions: Vec<String>,
    /// Whether it wants a Have with `ack` for every block it sends.
    pub ack: bool,
}

/// What the sender does. Before the first Status both count as true.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether it answers requests.
    pub uploading: bool,
    /// Whether it makes requests.
    pub downloading: bool,
}

/// The sender has these blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Have {
    /// The first block.
    pub start: u64,
    /// The number of blocks; 0 is read as 1. With a bitfield it repeats the length of the Want answered,
    /// even 0, and the bitfield says how many it covers.
    pub length: u64,
    /// Which of the blocks, as a bitfield-rle; without one, all.
    pub bitfield: Option<Bytes>,
    /// Whether this acknowledges a Data.
    pub ack: bool,
}

impl Have {
    /// The announcement of one block.
    #[must_use]
    pub const fn block(start: u64) -> Self {
        Self {
            start,
            length: 1,
            bitfield: None,
            ack: false,
        }
    }
}

/// The sender no longer has these blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unhave {
    /// The first block.
    pub start: u64,
    /// The number of blocks; 0 is read as 1.
    pub length: u64,
}

/// The sender wants to know which of these blocks the receiver has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// The first block, a multiple of 8192 in practice.
    pub start: u64,
    /// The number of blocks; 0 if the sender gave none.
    pub length: u64,
}

/// The sender no longer wants to know about these blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unwant {
    /// The first block.
    pub start: u64,
    /// The number of blocks; 0 if the sender gave none.
    pub length: u64,
}

/// Asks for a block with its proof.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// The number of the block.
    pub index: u64,
    /// If not 0: asks for the block at this byte position instead.
    pub bytes: u64,
    /// Asks for the proof without the block.
    pub hash: bool,
    /// The digest of what the sender knows of the tree already: all 64 bits count.
    pub nodes: u64,
}

/// Takes back the Request of the same fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cancel {
    /// The number of the block.
    pub index: u64,
    /// The byte position asked for.
    pub bytes: u64,
    /// Whether the Request was for the proof alone.
    pub hash: bool,
}

/// A block and the proof that it belongs there, which nobody has checked yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Data {
    /// The number of the block.
    pub index: u64,
    /// The block; absent in the answer to a Request with `hash`.
    pub value: Option<Bytes>,
    /// Nodes of the tree, in the order in which they are hashed together.
    pub nodes: Vec<DataNode>,
    /// The signature of the tree, if the nodes reach its roots.
    pub signature: Option<[u8; 64]>,
}

/// A node of the Merkle tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataNode {
    /// The position in the flat tree.
    pub index: u64,
    /// The hash.
    pub hash: [u8; 32],
    /// The number of bytes below.
    pub size: u64,
}

/// A message of an extension. Anybody on the path can alter it: it is encrypted, but not
/// authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// The position of the extension in the sender's list of names.
    pub id: u64,
    /// The message.
    pub payload: Bytes,
}

impl Message {
    /// The type of this message.
    #[must_use]
    pub fn kind(&self) -> MessageKind {
        match self {
            Self::Options(_) => MessageKind::Options,
            Self::Status(_) => MessageKind::Status,
            Self::Have(_) => MessageKind::Have,
            Self::Unhave(_) => MessageKind::Unhave,
            Self::Want(_) => MessageKind::Want,
            Self::Unwant(_) => MessageKind::Unwant,
            Self::Request(_) => MessageKind::Request,
            Self::Cancel(_) => MessageKind::Cancel,
            Self::Data(_) => MessageKind::Data,
            Self::Extension(_) => MessageKind::Extension,
        }
    }
}

macro_rules! into_message {
    ($($kind:ident)*) => {$(
        impl From<$kind> for Message {
            fn from(message: $kind) -> Self {
                Self::$kind(message)
            }
        }
    )*};
}

into_message!(Options Status Have Unhave Want Unwant Request Cancel Data Extension);

/// What a frame carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// Opens the channel of the frame.
    Open(Open),
    /// Closes it.
    Close(Close),
    /// Is about its log.
    Message(Message),
}

/// A message with the number of its channel: the content of a frame after its length.
///
/// ```text
/// varint(channel << 4 | type)  body
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The sender's number for the channel; 0 is the stream itself.
    pub channel: u32,
    /// The message.
    pub body: Body,
}

impl Frame {
    /// Reads a frame, whose blocks and payloads then share the memory of `bytes`. `None` is a frame
    /// of an unknown type, to be ignored.
    ///
    /// # Errors
    /// If the header or the message is invalid, or a limit is passed.
    pub fn decode(mut bytes: Bytes, limits: &Limits) -> Result<Option<Self>, Error> {
        let Ok(Some((header, length))) = varint::read(&bytes, varint::MAX_LENGTH) else {
            return Err(Error::FrameHeader);
        };
        // JS reads the header as a signed 32 bit number.
        let header = i32::try_from(header).map_err(|_| Error::FrameHeader)?;
        let channel = (header >> 4).unsigned_abs();
        bytes.advance(length);
        let Some(kind) = MessageKind::from_number(header as u8 & 0x0f) else {
            return Ok(None);
        };
        Ok(Some(Self {
            channel,
            body: schema::decode(kind, bytes, limits)?,
        }))
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut BytesMut) {
        BodyRef::from(&self.body).encode(self.channel, out);
    }

    /// The number of bytes [`Frame::encode`] appends.
    #[must_use]
    pub fn encoded_length(&self) -> usize {
        BodyRef::from(&self.body).encoded_length(self.channel)
    }
}

/// A borrowed [`Body`], so that sending copies a block exactly once.
#[derive(Clone, Copy)]
pub(crate) enum BodyRef<'a> {
    Open(&'a Open),
    Close(&'a Close),
    Message(&'a Message),
}

impl<'a> From<&'a Body> for BodyRef<'a> {
    fn from(body: &'a Body) -> Self {
        match body {
            Body::Open(open) => Self::Open(open),
            Body::Close(close) => Self::Close(close),
            Body::Message(message) => Self::Message(message),
        }
    }
}

impl BodyRef<'_> {
    fn kind(self) -> MessageKind {
        match self {
            Self::Open(_) => MessageKind::Open,
            Self::Close(_) => MessageKind::Close,
            Self::Message(message) => message.kind(),
        }
    }

    fn header(self, channel: u32) -> u64 {
        u64::from(channel) << 4 | self.kind() as u64
    }

    /// The length of the body alone, which is what the remote limits.
    pub(crate) fn body_length(self) -> usize {
        let mut length = Length(0);
        self.write(&mut length);
        length.0
    }

    /// The number of bytes before a body.
    pub(crate) fn header_length(self, channel: u32) -> usize {
        varint::length(self.header(channel))
    }

    fn encoded_length(self, channel: u32) -> usize {
        self.header_length(channel)
            .saturating_add(self.body_length())
    }

    pub(crate) fn encode(self, channel: u32, out: &mut BytesMut) {
        varint::write(self.header(channel), out);
        self.write(out);
    }

    /// Writes the fields as Hypercore 9 does: in ascending order, with explicit zeros.
    fn write(self, out: &mut impl Sink) {
        match self {
            Self::Open(open) => {
                out.bytes_field(1, &open.discovery_key);
                if let Some(capability) = &open.capability {
                    out.bytes_field(2, capability);
                }
            }
            Self::Close(close) => {
                if let Some(discovery_key) = &close.discovery_key {
                    out.bytes_field(1, discovery_key);
                }
            }
            Self::Message(Message::Options(options)) => {
                for name in &options.extensions {
                    out.bytes_field(1, name.as_bytes());
                }
                out.number_field(2, options.ack.into());
            }
            Self::Message(Message::Status(status)) => {
                out.number_field(1, status.uploading.into());
                out.number_field(2, status.downloading.into());
            }
            Self::Message(Message::Have(have)) => {
                out.number_field(1, have.start);
                // Hypercore 9 `lib/replicate.js` leaves the length out when it announces a single
                // block, and gives it in acknowledgements and in the answers to a Want.
                if have.length != 1 || have.bitfield.is_some() || have.ack {
                    out.number_field(2, have.length);
                }
                if let Some(bitfield) = &have.bitfield {
                    out.bytes_field(3, bitfield);
                }
                if have.ack {
                    out.number_field(4, 1);
                }
            }
            Self::Message(
                Message::Unhave(Unhave { start, length })
                | Message::Want(Want { start, length })
                | Message::Unwant(Unwant { start, length }),
            ) => {
                out.number_field(1, *start);
                out.number_field(2, *length);
            }
            Self::Message(Message::Request(request)) => {
                out.number_field(1, request.index);
                out.number_field(2, request.bytes);
                out.number_field(3, request.hash.into());
                out.number_field(4, request.nodes);
            }
            Self::Message(Message::Cancel(cancel)) => {
                out.number_field(1, cancel.index);
                out.number_field(2, cancel.bytes);
                out.number_field(3, cancel.hash.into());
            }
            Self::Message(Message::Data(data)) => {
                out.number_field(1, data.index);
                if let Some(value) = &data.value {
                    out.bytes_field(2, value);
                }
                data.nodes.iter().for_each(|node| out.node_field(3, node));
                if let Some(signature) = &data.signature {
                    out.bytes_field(4, signature);
                }
            }
            Self::Message(Message::Extension(extension)) => {
                out.number(extension.id);
                out.raw(&extension.payload);
            }
        }
    }
}

impl DataNode {
    /// The most bytes that [`write`](Self::write) takes: two numbers, a hash, and a byte or two
    /// before each.
    const MAX_LENGTH: usize = 2 * (1 + varint::MAX_LENGTH) + 2 + 32;

    fn write(&self, out: &mut impl Sink) {
        out.number_field(1, self.index);
        out.bytes_field(2, &self.hash);
        out.number_field(3, self.size);
    }
}

const WIRE_NUMBER: u64 = 0;
const WIRE_BYTES: u64 = 2;

/// Where protobuf fields go: into a buffer, or only into a sum of lengths.
trait Sink {
    fn number(&mut self, value: u64);
    fn raw(&mut self, bytes: &[u8]);
    fn node_field(&mut self, field: u64, node: &DataNode);

    fn key(&mut self, field: u64, wire_type: u64) {
        self.number(field << 3 | wire_type);
    }

    fn number_field(&mut self, field: u64, value: u64) {
        self.key(field, WIRE_NUMBER);
        self.number(value);
    }

    fn bytes_field(&mut self, field: u64, bytes: &[u8]) {
        self.key(field, WIRE_BYTES);
        self.number(bytes.len() as u64);
        self.raw(bytes);
    }
}

impl<T: BufMut> Sink for T {
    fn number(&mut self, value: u64) {
        varint::write(value, self);
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.put_slice(bytes);
    }

    // On the stack first: a buffer that may have to grow takes much longer for a few bytes, and the
    // length has to be known before them.
    fn node_field(&mut self, field: u64, node: &DataNode) {
        let mut bytes = [0; DataNode::MAX_LENGTH];
        let mut rest = &mut bytes[..];
        node.write(&mut rest);
        let left = rest.len();
        let (written, _) = bytes.split_at(DataNode::MAX_LENGTH.saturating_sub(left));
        self.bytes_field(field, written);
    }
}

struct Length(usize);

impl Sink for Length {
    fn number(&mut self, value: u64) {
        self.0 = self.0.saturating_add(varint::length(value));
    }

    fn raw(&mut self, bytes: &[u8]) {
        self.0 = self.0.saturating_add(bytes.len());
    }

    fn node_field(&mut self, field: u64, node: &DataNode) {
        let mut length = Self(0);
        node.write(&mut length);
        self.key(field, WIRE_BYTES);
        self.number(length.0 as u64);
        self.0 = self.0.saturating_add(length.0);
    }
}

/// Refuses a run of blocks, even an empty one, that does not lie below [`MAX_BLOCKS`].
pub(crate) fn check_range(kind: MessageKind, start: u64, length: u64) -> Result<(), Error> {
    match start.checked_add(length) {
        Some(end) if start < MAX_BLOCKS && end <= MAX_BLOCKS => Ok(()),
        _ => Err(Error::invalid(kind, Problem::TooLarge { field: 2 })),
    }
}
