//! From the bytes of a body to a checked message.
//!
//! prost alone accepts too much: absent required fields read as zero, groups are skipped, and a
//! frame of empty nodes takes 25 times its size in memory. So [`Fields`] looks at tags and lengths
//! first, fields are all declared optional here, and the conversions check the rest.
//!
//! Request and Data, which there is one of for every block, are read from [`Fields`] alone. Through
//! prost, which is the oracle in the tests, Data took a sixth of the time of a client that downloads
//! small blocks: each hash became a `Bytes` of its own, and each list of nodes was made twice.

use bytes::Bytes;
use prost::Message as _;

use crate::error::Problem;
use crate::message::check_range;
use crate::{
    Body, Cancel, Close, Data, DataNode, Error, Extension, Have, Limits, MAX_BLOCKS, MAX_NUMBER,
    Message, MessageKind, Open, Options, Request, Status, Unhave, Unwant, Want, varint,
};

/// Decodes the body of a message.
pub(crate) fn decode(kind: MessageKind, body: Bytes, limits: &Limits) -> Result<Body, Error> {
    if kind == MessageKind::Extension {
        return decode_extension(body)
            .map(Message::Extension)
            .map(Body::Message);
    }
    let checked = Checked { kind, limits };
    match kind {
        MessageKind::Data => return Ok(Body::Message(Message::Data(checked.data(body)?))),
        MessageKind::Request => {
            return Ok(Body::Message(Message::Request(checked.request(&body)?)));
        }
        _ => {}
    }
    let repeated = match kind {
        MessageKind::Options => Repeated {
            field: 1,
            max: limits.extension_names,
        },
        _ => Repeated { field: 0, max: 0 },
    };
    walk(&body, repeated).map_err(|problem| Error::invalid(kind, problem))?;
    Ok(match kind {
        MessageKind::Open => Body::Open(checked.open(proto(kind, body)?)?),
        MessageKind::Close => Body::Close(checked.close(proto(kind, body)?)?),
        _ => Body::Message(match kind {
            MessageKind::Options => Message::Options(checked.options(proto(kind, body)?)?),
            MessageKind::Status => Message::Status(checked.status(proto(kind, body)?)),
            MessageKind::Have => Message::Have(checked.have(proto(kind, body)?)?),
            MessageKind::Unhave => Message::Unhave(checked.unhave(proto(kind, body)?)?),
            MessageKind::Want => Message::Want(checked.want(proto(kind, body)?)?),
            MessageKind::Unwant => Message::Unwant(checked.unwant(proto(kind, body)?)?),
            _ => Message::Cancel(checked.cancel(proto(kind, body)?)?),
        }),
    })
}

fn proto<T: prost::Message + Default>(kind: MessageKind, body: Bytes) -> Result<T, Error> {
    T::decode(body).map_err(|_| Error::invalid(kind, Problem::Malformed))
}

fn decode_extension(mut body: Bytes) -> Result<Extension, Error> {
    match varint::read(&body, varint::MAX_LENGTH) {
        Ok(Some((id, length))) => Ok(Extension {
            id,
            payload: body.split_off(length),
        }),
        _ => Err(Error::invalid(MessageKind::Extension, Problem::Malformed)),
    }
}

/// The nonce in the payload of the handshake messages.
pub(crate) fn decode_noise_payload(payload: &[u8]) -> Result<[u8; 24], Error> {
    walk(payload, Repeated { field: 0, max: 0 }).map_err(|_| Error::HandshakePayload)?;
    let nonce = proto::NoisePayload::decode(payload)
        .ok()
        .and_then(|payload| payload.nonce)
        .ok_or(Error::HandshakePayload)?;
    nonce.as_slice().try_into().map_err(|_| Error::NonceLength {
        length: nonce.len(),
    })
}

/// The payload that carries `nonce`: field 1 with 24 bytes.
pub(crate) fn encode_noise_payload(nonce: &[u8; 24]) -> Vec<u8> {
    proto::NoisePayload {
        nonce: Some(nonce.to_vec()),
    }
    .encode_to_vec()
}

/// A field that may occur several times, and how often.
#[derive(Clone, Copy)]
struct Repeated {
    field: u32,
    max: usize,
}

/// Looks at tags and lengths only: every field must be whole, of a wire type that JS reads too, and
/// the repeated one must not occur too often.
fn walk(body: &[u8], repeated: Repeated) -> Result<(), Problem> {
    let mut count = 0usize;
    for field in Fields(body) {
        if field?.0 == u64::from(repeated.field) {
            count = count.saturating_add(1);
            if count > repeated.max {
                return Err(Problem::TooMany {
                    field: repeated.field,
                    max: repeated.max,
                });
            }
        }
    }
    Ok(())
}

/// The fields of a message, in their order: the number of each and what it holds.
struct Fields<'a>(&'a [u8]);

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    /// Of a type that no field here has.
    Fixed,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Problem>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Result<(u64, Value<'a>), Problem> {
        let (key, rest) = number(self.0)?;
        if key >> 3 == 0 || u32::try_from(key).is_err() {
            return Err(Problem::Malformed);
        }
        let (value, rest) = match key & 7 {
            0 => {
                let (value, rest) = number(rest)?;
                (Value::Number(value), rest)
            }
            1 => (Value::Fixed, rest.get(8..).ok_or(Problem::Malformed)?),
            2 => {
                let (length, rest) = number(rest)?;
                let length = usize::try_from(length).map_err(|_| Problem::Malformed)?;
                let (bytes, rest) = rest.split_at_checked(length).ok_or(Problem::Malformed)?;
                (Value::Bytes(bytes), rest)
            }
            5 => (Value::Fixed, rest.get(4..).ok_or(Problem::Malformed)?),
            // 3 and 4 are groups, 6 and 7 do not exist.
            _ => return Err(Problem::Malformed),
        };
        self.0 = rest;
        Ok((key >> 3, value))
    }
}

fn number(bytes: &[u8]) -> Result<(u64, &[u8]), Problem> {
    match varint::read(bytes, varint::MAX_LENGTH) {
        Ok(Some((value, length))) => Ok((value, bytes.get(length..).unwrap_or_default())),
        _ => Err(Problem::Malformed),
    }
}

/// Room for the nodes that most proofs have.
const MANY_NODES: usize = 8;

/// The rules that protobuf does not know, for one type of message.
struct Checked<'a> {
    kind: MessageKind,
    limits: &'a Limits,
}

impl Checked<'_> {
    fn open(&self, open: proto::Open) -> Result<Open, Error> {
        Ok(Open {
            discovery_key: self.fixed(1, &self.required(1, open.discovery_key)?)?,
            capability: self.optional(2, open.capability)?,
        })
    }

    fn close(&self, close: proto::Close) -> Result<Close, Error> {
        Ok(Close {
            discovery_key: self.optional(1, close.discovery_key)?,
        })
    }

    fn options(&self, options: proto::Options) -> Result<Options, Error> {
        for name in &options.extensions {
            if name.len() > self.limits.extension_name {
                return Err(self.wrong(Problem::WrongLength {
                    field: 1,
                    length: name.len(),
                }));
            }
        }
        Ok(Options {
            extensions: options.extensions,
            ack: options.ack.unwrap_or(false),
        })
    }

    fn status(&self, status: proto::Status) -> Status {
        Status {
            uploading: status.uploading.unwrap_or(false),
            downloading: status.downloading.unwrap_or(false),
        }
    }

    fn have(&self, have: proto::Have) -> Result<Have, Error> {
        let (start, length) = self.range(have.start, have.length, 1)?;
        if have.bitfield.is_some() && start % 8 != 0 {
            return Err(self.wrong(Problem::UnalignedBitfield));
        }
        Ok(Have {
            start,
            length,
            bitfield: have.bitfield,
            ack: have.ack.unwrap_or(false),
        })
    }

    fn unhave(&self, range: proto::Range) -> Result<Unhave, Error> {
        let (start, length) = self.range(range.start, range.length, 1)?;
        Ok(Unhave { start, length })
    }

    fn want(&self, range: proto::Range) -> Result<Want, Error> {
        let (start, length) = self.range(range.start, range.length, 0)?;
        Ok(Want { start, length })
    }

    fn unwant(&self, range: proto::Range) -> Result<Unwant, Error> {
        let (start, length) = self.range(range.start, range.length, 0)?;
        Ok(Unwant { start, length })
    }

    fn request(&self, body: &[u8]) -> Result<Request, Error> {
        let (mut index, mut bytes, mut hash, mut nodes) = (None, 0, false, 0);
        for field in Fields(body) {
            match field.map_err(|problem| self.wrong(problem))? {
                (1, Value::Number(number)) => index = Some(number),
                (2, Value::Number(number)) => bytes = number,
                (3, Value::Number(number)) => hash = number != 0,
                (4, Value::Number(number)) => nodes = number,
                (1..=4, _) => return Err(self.wrong(Problem::Malformed)),
                _ => {}
            }
        }
        Ok(Request {
            index: self.block(index)?,
            bytes: self.exact(2, bytes)?,
            hash,
            nodes,
        })
    }

    fn cancel(&self, cancel: proto::Cancel) -> Result<Cancel, Error> {
        Ok(Cancel {
            index: self.block(cancel.index)?,
            bytes: self.exact(2, cancel.bytes.unwrap_or(0))?,
            hash: cancel.hash.unwrap_or(false),
        })
    }

    fn data(&self, body: Bytes) -> Result<Data, Error> {
        let (mut index, mut value, mut signature) = (None, None, None);
        let mut nodes = Vec::new();
        for field in Fields(&body) {
            match field.map_err(|problem| self.wrong(problem))? {
                (1, Value::Number(number)) => index = Some(number),
                (2, Value::Bytes(bytes)) => value = Some(bytes),
                (3, Value::Bytes(bytes)) => {
                    if nodes.len() >= self.limits.nodes {
                        let max = self.limits.nodes;
                        return Err(self.wrong(Problem::TooMany { field: 3, max }));
                    }
                    if nodes.is_empty() {
                        nodes.reserve(MANY_NODES.min(self.limits.nodes));
                    }
                    nodes.push(self.node(bytes)?);
                }
                (4, Value::Bytes(bytes)) => signature = Some(bytes),
                (1..=4, _) => return Err(self.wrong(Problem::Malformed)),
                _ => {}
            }
        }
        let index = self.block(index)?;
        if value.is_none() && nodes.is_empty() {
            return Err(self.wrong(Problem::Empty));
        }
        Ok(Data {
            index,
            // Blocks share the memory of the frame.
            value: value.map(|value| body.slice_ref(value)),
            nodes,
            signature: signature.map(|bytes| self.fixed(4, bytes)).transpose()?,
        })
    }

    fn node(&self, body: &[u8]) -> Result<DataNode, Error> {
        let (mut index, mut hash, mut size) = (None, None, None);
        for field in Fields(body) {
            match field.map_err(|problem| self.wrong(problem))? {
                (1, Value::Number(number)) => index = Some(number),
                (2, Value::Bytes(bytes)) => hash = Some(bytes),
                (3, Value::Number(number)) => size = Some(number),
                (1..=3, _) => return Err(self.wrong(Problem::Malformed)),
                _ => {}
            }
        }
        Ok(DataNode {
            index: self.exact(3, self.required(3, index)?)?,
            hash: self.fixed(3, self.required(3, hash)?)?,
            size: self.exact(3, self.required(3, size)?)?,
        })
    }

    fn range(
        &self,
        start: Option<u64>,
        length: Option<u64>,
        absent: u64,
    ) -> Result<(u64, u64), Error> {
        let (start, length) = (self.required(1, start)?, length.unwrap_or(absent));
        check_range(self.kind, start, length)?;
        Ok((start, length))
    }

    fn block(&self, index: Option<u64>) -> Result<u64, Error> {
        let index = self.required(1, index)?;
        if index < MAX_BLOCKS {
            Ok(index)
        } else {
            Err(self.wrong(Problem::TooLarge { field: 1 }))
        }
    }

    fn exact(&self, field: u32, value: u64) -> Result<u64, Error> {
        if value <= MAX_NUMBER {
            Ok(value)
        } else {
            Err(self.wrong(Problem::TooLarge { field }))
        }
    }

    fn required<T>(&self, field: u32, value: Option<T>) -> Result<T, Error> {
        value.ok_or_else(|| self.wrong(Problem::MissingField { field }))
    }

    fn optional<const N: usize>(
        &self,
        field: u32,
        bytes: Option<Bytes>,
    ) -> Result<Option<[u8; N]>, Error> {
        bytes.map(|bytes| self.fixed(field, &bytes)).transpose()
    }

    fn fixed<const N: usize>(&self, field: u32, bytes: &[u8]) -> Result<[u8; N], Error> {
        bytes.try_into().map_err(|_| {
            self.wrong(Problem::WrongLength {
                field,
                length: bytes.len(),
            })
        })
    }

    fn wrong(&self, problem: Problem) -> Error {
        Error::invalid(self.kind, problem)
    }
}

/// simple-hypercore-protocol `schema.proto`, with required fields declared optional.
mod proto {
    use bytes::Bytes;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct NoisePayload {
        #[prost(bytes = "vec", optional, tag = "1")]
        pub(super) nonce: Option<Vec<u8>>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Open {
        #[prost(bytes = "bytes", optional, tag = "1")]
        pub(super) discovery_key: Option<Bytes>,
        #[prost(bytes = "bytes", optional, tag = "2")]
        pub(super) capability: Option<Bytes>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Options {
        #[prost(string, repeated, tag = "1")]
        pub(super) extensions: Vec<String>,
        #[prost(bool, optional, tag = "2")]
        pub(super) ack: Option<bool>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Status {
        #[prost(bool, optional, tag = "1")]
        pub(super) uploading: Option<bool>,
        #[prost(bool, optional, tag = "2")]
        pub(super) downloading: Option<bool>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Have {
        #[prost(uint64, optional, tag = "1")]
        pub(super) start: Option<u64>,
        #[prost(uint64, optional, tag = "2")]
        pub(super) length: Option<u64>,
        #[prost(bytes = "bytes", optional, tag = "3")]
        pub(super) bitfield: Option<Bytes>,
        #[prost(bool, optional, tag = "4")]
        pub(super) ack: Option<bool>,
    }

    /// Unhave, Want and Unwant.
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Range {
        #[prost(uint64, optional, tag = "1")]
        pub(super) start: Option<u64>,
        #[prost(uint64, optional, tag = "2")]
        pub(super) length: Option<u64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Cancel {
        #[prost(uint64, optional, tag = "1")]
        pub(super) index: Option<u64>,
        #[prost(uint64, optional, tag = "2")]
        pub(super) bytes: Option<u64>,
        #[prost(bool, optional, tag = "3")]
        pub(super) hash: Option<bool>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Close {
        #[prost(bytes = "bytes", optional, tag = "1")]
        pub(super) discovery_key: Option<Bytes>,
    }
}

/// The slow and simple way to read Request and Data, to hold the fast one against.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod oracle {
    use bytes::Bytes;
    use prost::Message as _;

    use super::{Checked, Fields, Repeated, Value, walk};
    use crate::{Data, DataNode, Limits, MessageKind, Request};

    /// `None` if the body is not valid.
    pub(crate) fn request(body: &Bytes, limits: &Limits) -> Option<Request> {
        walk(body, Repeated { field: 0, max: 0 }).ok()?;
        let request = ProtoRequest::decode(body.clone()).ok()?;
        let checked = Checked {
            kind: MessageKind::Request,
            limits,
        };
        Some(Request {
            index: checked.block(request.index).ok()?,
            bytes: checked.exact(2, request.bytes.unwrap_or(0)).ok()?,
            hash: request.hash.unwrap_or(false),
            nodes: request.nodes.unwrap_or(0),
        })
    }

    /// `None` if the body is not valid.
    pub(crate) fn data(body: &Bytes, limits: &Limits) -> Option<Data> {
        let (field, max) = (3, limits.nodes);
        walk(body, Repeated { field, max }).ok()?;
        for part in Fields(body) {
            // As strictly: prost takes longer forms of a number than are needed.
            if let (3, Value::Bytes(node)) = part.ok()? {
                walk(node, Repeated { field: 0, max: 0 }).ok()?;
            }
        }
        let data = ProtoData::decode(body.clone()).ok()?;
        let checked = Checked {
            kind: MessageKind::Data,
            limits,
        };
        let node = |node: &Node| {
            Some(DataNode {
                index: checked.exact(3, node.index?).ok()?,
                hash: node.hash.as_deref()?.try_into().ok()?,
                size: checked.exact(3, node.size?).ok()?,
            })
        };
        let nodes: Vec<_> = data.nodes.iter().map(node).collect::<Option<_>>()?;
        let signature = data.signature.as_deref().map(<[u8; 64]>::try_from);
        (data.value.is_some() || !nodes.is_empty()).then_some(Data {
            index: checked.block(data.index).ok()?,
            value: data.value,
            nodes,
            signature: signature.transpose().ok()?,
        })
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct ProtoRequest {
        #[prost(uint64, optional, tag = "1")]
        index: Option<u64>,
        #[prost(uint64, optional, tag = "2")]
        bytes: Option<u64>,
        #[prost(bool, optional, tag = "3")]
        hash: Option<bool>,
        #[prost(uint64, optional, tag = "4")]
        nodes: Option<u64>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct ProtoData {
        #[prost(uint64, optional, tag = "1")]
        index: Option<u64>,
        #[prost(bytes = "bytes", optional, tag = "2")]
        value: Option<Bytes>,
        #[prost(message, repeated, tag = "3")]
        nodes: Vec<Node>,
        #[prost(bytes = "bytes", optional, tag = "4")]
        signature: Option<Bytes>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    struct Node {
        #[prost(uint64, optional, tag = "1")]
        index: Option<u64>,
        #[prost(bytes = "bytes", optional, tag = "2")]
        hash: Option<Bytes>,
        #[prost(uint64, optional, tag = "3")]
        size: Option<u64>,
    }
}
