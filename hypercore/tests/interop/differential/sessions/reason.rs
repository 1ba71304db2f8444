//! What both may do differently with the same bytes, and why that is right.

use super::super::oddity::Oddity;

/// Why we do something else than Node. Where it can be, whether it is so is seen from the message, not from what we say of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Reason {
    /// A frame that is not read alike, and that we refuse.
    Refused(Oddity),
    /// A boolean of several bytes. Node reads the first, and the next as a tag.
    Boolean,
    /// A range of more blocks than there can be time for. Node sets the bit of each.
    Endless,
    /// A range of more blocks than there can be memory for. Node throws, and nobody catches it, as with those down to
    /// [`Rle`].
    Grows,
    /// A message of an extension without a number.
    EmptyExtension,
    /// An answer with neither a block nor nodes.
    EmptyAnswer,
    /// A signature that is cut.
    ShortSignature,
    /// A bitfield whose blocks do not begin at a byte of Node's bitfield.
    Offset,
    /// A bitfield whose blocks begin within a page of Node's bitfield, and go on behind its end.
    Page,
    /// A bitfield that cannot be decoded.
    Rle,
    /// A bitfield with more blocks than it says, or with a header longer than it needs to be. Node takes both.
    RleForm,
    /// A number for a channel that was given to another, or to the same, before. Node opens it again, and says what it says
    /// at the beginning once more.
    SecondOpen,
    /// A proof stops below the roots, which are beside it. Node believes whatever the block is, or fails when it stores the block
    /// and is longer all the same.
    BelowRoots,
    /// A proof without a block that nobody asked for. Node takes it if it is true, and ends the connection if it is not.
    UnaskedProof,
    /// A request for what is not here and cannot be proven. Node ends the connection, we say that it is not here.
    NotHere,
    /// A request for a byte whose block is not here, though its hash is. Node says nothing, or sends the proof if that was all that
    /// was asked for; we answer as if it was for the block that is named.
    ByteNotHere,
    /// A log was closed by another number than it was opened with. Node goes on listening to that one, and what it says is on
    /// channel -1, which cannot be read.
    HalfClosed,
    /// An answer after the peer said that it does not have the block. Our request is given up then, and the block is asked for when
    /// somebody has it; Node waits on.
    GivenUp,
    /// A digest beyond 2^53, which Node reads as another number. Every digest has a true answer.
    Digest,
    /// A request for a block that is not here told what the peer knows. Node remembers that, we do not: our answer to a later one
    /// has all that is in Node's, and more.
    ToldInVain,
    /// A bitfield of blocks that do not begin with the first one. Node notes them at other places.
    HaveStart,
    /// A Want like one before. We answer it too, but not at once.
    WantAgain,
    /// Together with a mistake came a true answer. Node stores it although the connection is over; we do not.
    BeforeMistake,
    /// A mistake came together with a message at which Node throws or loops, which it does before it has ended the connection.
    BeforeThrown,
    /// Two answers to one request came together. Node looks at both: it fails if the second is false, or believes it. We leave it
    /// out.
    Twice,
    /// A question came together with an answer. We store the answer before we look at the question, Node later.
    StoredBefore,
    /// An answer came together with one that proves what it leaves out, or that makes the log longer. We look at one after the other,
    /// Node at both before it stores any.
    CountsOn,
    /// A question or a mistake came together with the end of its channel. Node answers before it closes, we do not; and of answers
    /// and requests it finds only after that that they are false, when nobody cares.
    ClosedBefore,
    /// An empty block, when Node has stored no others behind it: it does not find the place where it would be.
    EmptyBlock,
}

use Reason::*;

impl Reason {
    pub(super) const ALL: [Self; 39] = [
        Refused(Oddity::Cut),
        Refused(Oddity::LongNumber),
        Refused(Oddity::WireType),
        Refused(Oddity::Tag),
        Refused(Oddity::Boolean),
        Refused(Oddity::Name),
        Refused(Oddity::TooLarge),
        Refused(Oddity::Length),
        Refused(Oddity::Unaligned),
        Refused(Oddity::Empty),
        Refused(Oddity::Header),
        Boolean,
        Endless,
        Grows,
        EmptyExtension,
        EmptyAnswer,
        ShortSignature,
        Offset,
        Page,
        Rle,
        RleForm,
        SecondOpen,
        BelowRoots,
        UnaskedProof,
        NotHere,
        ByteNotHere,
        GivenUp,
        Digest,
        ToldInVain,
        HaveStart,
        WantAgain,
        BeforeMistake,
        BeforeThrown,
        Twice,
        StoredBefore,
        CountsOn,
        ClosedBefore,
        HalfClosed,
        EmptyBlock,
    ];
}
