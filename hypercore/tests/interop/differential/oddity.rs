//! What both may read differently, and why that is right.

use hypercore::wire::{Error, Problem};

/// Something in a frame that nobody writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Oddity {
    /// A field that goes on behind the end of its message. Node takes it as ending there.
    Cut,
    /// A number longer than it needs to be, or beyond 64 bits. Numbers have one form for us; Node reads the others too.
    LongNumber,
    /// A field of another wire type than that of the schema, at which Node does not look.
    WireType,
    /// The number of a field is 0 or beyond 2^29. Node skips the first, and takes tags modulo 2^32.
    Tag,
    /// A boolean of several bytes. Node reads the first, and the next as a tag.
    Boolean,
    /// A name that is not UTF-8, in which Node replaces what it cannot read.
    Name,
    /// A digest, or the number of an extension, from 2^53: Node loses the lowest bits.
    Inexact,
    /// A block, length or size beyond what Node can count: loops without end there.
    TooLarge,
    /// A key, hash or signature of another length, with which Node fails later.
    Length,
    /// A bitfield that begins within a byte. Node throws when it uses it.
    Unaligned,
    /// A Data without a block and without nodes. Node throws when it uses it.
    Empty,
    /// The header of a frame is cut or beyond 31 bits, which Node takes modulo 2^32.
    Header,
    /// The length of a frame that passes the limit, or is longer than it needs to be. Node waits for the header.
    FrameLength,
}

use Oddity::*;

impl Oddity {
    pub(super) const ALL: [Self; 13] = [
        Cut,
        LongNumber,
        WireType,
        Tag,
        Boolean,
        Name,
        Inexact,
        TooLarge,
        Length,
        Unaligned,
        Empty,
        Header,
        FrameLength,
    ];

    /// Why we refused a frame; `None` if there is no reason but ours.
    pub(super) fn refused(frame: Option<&[u8]>, error: &Error) -> Option<Self> {
        Some(match error {
            Error::FrameLength | Error::FrameTooLarge { .. } => FrameLength,
            Error::FrameHeader => Header,
            Error::InvalidMessage { problem, .. } => match problem {
                Problem::TooLarge { .. } => TooLarge,
                Problem::WrongLength { .. } => Length,
                Problem::UnalignedBitfield => Unaligned,
                Problem::Empty => Empty,
                Problem::Malformed | Problem::MissingField { .. } => return Self::within(frame?),
                _ => return None,
            },
            _ => return None,
        })
    }

    /// The first oddity in the syntax of a frame. Written without a look at our decoder, so that it can tell on it.
    pub(super) fn within(frame: &[u8]) -> Option<Self> {
        let (header, body) = number(frame).ok()?;
        // What the schema says of the fields of each type.
        let schema: &[Field] = match header & 15 {
            0 => &[Field::Bytes, Field::Bytes],
            1 => &[Field::Name, Field::Boolean],
            2 => &[Field::Boolean, Field::Boolean],
            3 => &[Field::Number, Field::Number, Field::Bytes, Field::Boolean],
            4..=6 => &[Field::Number, Field::Number],
            7 => &[Field::Number, Field::Number, Field::Boolean, Field::Digest],
            8 => &[Field::Number, Field::Number, Field::Boolean],
            9 => &[Field::Number, Field::Bytes, Field::Node, Field::Bytes],
            10 => &[Field::Bytes],
            _ => {
                let id = number(body);
                return id.map_or_else(Some, |(id, _)| (id >= 1 << 53).then_some(Inexact));
            }
        };
        fields(body, schema).err()
    }
}

#[derive(Clone, Copy)]
enum Field {
    Number,
    Digest,
    Boolean,
    Bytes,
    Name,
    Node,
}

/// Walks over the fields of a message.
fn fields(mut body: &[u8], schema: &[Field]) -> Result<(), Oddity> {
    while !body.is_empty() {
        let (tag, rest) = number(body)?;
        if tag >> 3 == 0 || tag >= 1 << 32 {
            return Err(Tag);
        }
        let field = schema.get((tag >> 3) as usize - 1);
        let wire_type = field.map(|field| match field {
            Field::Number | Field::Digest | Field::Boolean => 0,
            Field::Bytes | Field::Name | Field::Node => 2,
        });
        if wire_type.is_some_and(|wire_type| wire_type != tag & 7) {
            return Err(WireType);
        }
        body = match tag & 7 {
            0 => {
                let (value, rest) = number(rest)?;
                match field {
                    Some(Field::Boolean) if value >= 0x80 => return Err(Boolean),
                    Some(Field::Digest) if value >= 1 << 53 => return Err(Inexact),
                    _ => rest,
                }
            }
            1 => rest.get(8..).ok_or(Cut)?,
            2 => {
                let (length, rest) = number(rest)?;
                let (content, rest) = rest.split_at_checked(length as usize).ok_or(Cut)?;
                match field {
                    Some(Field::Name) if std::str::from_utf8(content).is_err() => return Err(Name),
                    Some(Field::Node) => {
                        fields(content, &[Field::Number, Field::Bytes, Field::Number])?;
                    }
                    _ => {}
                }
                rest
            }
            5 => rest.get(4..).ok_or(Cut)?,
            _ => return Err(WireType),
        };
    }
    Ok(())
}

/// Reads a varint in its shortest form.
fn number(bytes: &[u8]) -> Result<(u64, &[u8]), Oddity> {
    let length = 1 + bytes.iter().position(|&byte| byte < 0x80).ok_or(Cut)?;
    let (digits, rest) = bytes.split_at(length);
    let value = digits
        .iter()
        .rev()
        .fold(0u128, |value, &byte| value << 7 | u128::from(byte & 0x7f));
    match u64::try_from(value) {
        Ok(value) if length == 1 || (length <= 10 && digits[length - 1] != 0) => Ok((value, rest)),
        _ => Err(LongNumber),
    }
}
