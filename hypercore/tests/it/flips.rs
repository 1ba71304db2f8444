//! Somebody on the path who alters bits. The cipher has no authentication, so that he gets as far as
//! the messages; what he must not do is to bring a core to believe a false block or to panic.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use futures_lite::{AsyncRead, AsyncWrite, future::block_on};
use hypercore::{GetOptions, Hypercore, ReplicateOptions, Replication, Role};

use crate::support::{clone_of, writer};

const BLOCKS: usize = 24;

/// Where in the bytes from one side to the other a bit is altered.
#[derive(Debug, Clone, Copy)]
struct Flip {
    from: usize,
    bit: usize,
}

/// Carries bytes both ways until nothing moves any more; returns how many each side sent.
fn carry(sides: &mut [Replication; 2], flip: Option<Flip>) -> [usize; 2] {
    let mut cx = Context::from_waker(Waker::noop());
    let mut sent = [0, 0];
    let mut ended = [false, false];
    let mut quiet = 0;
    while quiet < 3 {
        quiet += 1;
        for from in [0, 1] {
            let mut buffer = [0; 4096];
            if ended[from] {
                continue;
            }
            let count = match Pin::new(&mut sides[from]).poll_read(&mut cx, &mut buffer) {
                Poll::Ready(Ok(count @ 1..)) => count,
                Poll::Ready(_) => {
                    ended[from] = true;
                    continue;
                }
                Poll::Pending => continue,
            };
            quiet = 0;
            let bytes = &mut buffer[..count];
            if let Some(flip) = flip.filter(|flip| flip.from == from)
                && let Some(at) = (flip.bit / 8).checked_sub(sent[from])
                && at < count
            {
                bytes[at] ^= 1 << (flip.bit % 8);
            }
            sent[from] += count;
            let mut rest = &*bytes;
            while !rest.is_empty() {
                match Pin::new(&mut sides[1 - from]).poll_write(&mut cx, rest) {
                    Poll::Ready(Ok(count)) => rest = &rest[count..],
                    // It does not read any more: what is left is lost.
                    Poll::Ready(Err(_)) | Poll::Pending => break,
                }
            }
        }
    }
    sent
}

/// One connection with a bit altered; returns how many bytes each side sent.
fn exchange(origin: &Hypercore, clone: &Hypercore, flip: Option<Flip>) -> [usize; 2] {
    let replicate = |core: &Hypercore, role| {
        let mut options = ReplicateOptions::live();
        options.ack = true;
        core.replicate(role, options).expect("an open core")
    };
    let mut sides = [
        replicate(clone, Role::Initiator),
        replicate(origin, Role::Responder),
    ];
    carry(&mut sides, flip)
}

/// A clone that is fetched over a connection with a bit altered; returns how many blocks came before that.
/// The next connection brings what is left.
async fn clone_despite(origin: &Hypercore, flip: Flip) -> u64 {
    let clone = clone_of(origin, false).await;
    exchange(origin, &clone, Some(flip));
    check(&clone, flip).await;
    let blocks = clone.downloaded(0..BLOCKS as u64);

    exchange(origin, &clone, None);
    check(&clone, flip).await;
    let whole = clone.downloaded(0..BLOCKS as u64);
    assert_eq!(whole, BLOCKS as u64, "after {flip:?}");
    blocks
}

/// Nothing of the clone is false.
async fn check(clone: &Hypercore, flip: Flip) {
    assert!(clone.length() <= BLOCKS as u64, "{flip:?}");
    assert_eq!(clone.audit().await.unwrap().invalid, [0; 0], "{flip:?}");
    for index in (0..BLOCKS as u64).filter(|&index| clone.has(index)) {
        let block = clone.get_with(index, GetOptions::local()).await.unwrap();
        assert_eq!(block, format!("block {index}"), "{flip:?}");
    }
}

/// Every so many bits of a whole connection, handshake included; `HYPERCORE_FLIP_STRIDE=1` takes
/// all of them.
#[test]
fn an_altered_bit_costs_no_more_than_the_connection() {
    let stride = std::env::var("HYPERCORE_FLIP_STRIDE").map_or(61, |stride| {
        stride.parse().expect("HYPERCORE_FLIP_STRIDE is a number")
    });
    // However long it takes, with all of them.
    block_on(async move {
        let origin = writer(BLOCKS).await;
        let clone = clone_of(&origin, false).await;
        let sent = exchange(&origin, &clone, None);
        let blocks = clone.downloaded(0..BLOCKS as u64);
        assert_eq!(blocks, BLOCKS as u64, "an honest path brings everything");
        let (mut flips, mut whole) = (0, 0);
        for from in [0, 1] {
            for bit in (0..8 * sent[from]).step_by(stride) {
                let blocks = clone_despite(&origin, Flip { from, bit }).await;
                flips += 1;
                whole += u32::from(blocks == BLOCKS as u64);
            }
        }
        println!(
            "{flips} of {} bits; {whole} exchanges were whole",
            8 * (sent[0] + sent[1])
        );
        assert!(flips > 100 && whole < flips, "bits were altered");
        assert_eq!(origin.length(), BLOCKS as u64);
        assert_eq!(origin.audit().await.unwrap().valid, BLOCKS as u64);
    });
}
