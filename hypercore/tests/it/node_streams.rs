//! What `test/streams.js`, `test/value-encoding.js` and the streams of `test/basic.js` of Node's
//! Hypercore 9 check.

use futures_lite::{AsyncReadExt, AsyncWriteExt, StreamExt, future::poll_once, io};
use hypercore::{
    Bytes, Codec, CodecError, DownloadOptions, Error, Event, GetOptions, Hypercore, Order,
    ReadOptions, SeekOptions, TypedReadStream, UpdateOptions, Utf8,
};
use proptest::prelude::*;

use crate::support::{clone_of, connect_live, drain, event, run, soon, writer};

async fn read(core: &Hypercore, options: ReadOptions) -> Vec<Bytes> {
    let blocks = core.read_stream(options).try_collect();
    soon("the end of a stream", blocks).await.unwrap()
}

fn read_options(change: impl FnOnce(&mut ReadOptions)) -> ReadOptions {
    let mut options = ReadOptions::default();
    change(&mut options);
    options
}

#[test]
fn create_write_stream_with_max_block_size() {
    run(async {
        let core = Hypercore::options().open_memory().await.unwrap();
        let mut writer = core.write_stream(256);
        writer.write_all(&[b'a'; 600]).await.unwrap();
        writer.flush().await.unwrap();
        let sizes: Vec<_> = read(&core, ReadOptions::default())
            .await
            .iter()
            .map(Bytes::len)
            .collect();
        assert_eq!(sizes, [256, 256, 88]);
        writer.close().await.unwrap();
        assert_eq!(core.length(), 3, "nothing was left to append");
    });
}

/// Whole blocks waited for the next write, which may come much later.
#[test]
fn a_whole_block_is_appended_when_it_is_written() {
    run(async {
        let core = writer(0).await;
        let mut writer = core.write_stream(4);
        for (bytes, length) in [("abcd", 1), ("efghijkl", 3), ("m", 3), ("nop", 4)] {
            writer.write_all(bytes.as_bytes()).await.unwrap();
            assert_eq!(core.length(), length);
        }
        assert_eq!(core.get(3).await.unwrap(), "mnop");

        // Where it waits for a disk, it is under way.
        let directory = tempfile::tempdir().unwrap();
        let core = Hypercore::open(directory.path()).await.unwrap();
        let mut writer = core.write_stream(4);
        writer.write_all(b"abcd").await.unwrap();
        let stored = UpdateOptions::default().min_length(1);
        soon("the block", core.update_with(stored)).await.unwrap();
        // It fails where it is written, if it does at once.
        let clone = clone_of(&core, true).await;
        let mut writer = clone.write_stream(4);
        assert!(writer.write_all(b"abcd").await.is_err());
    });
}

/// It was appended.
#[test]
fn a_closed_write_stream_takes_nothing() {
    run(async {
        let core = writer(0).await;
        let mut writer = core.write_stream(4);
        writer.write_all(b"ab").await.unwrap();
        writer.close().await.unwrap();
        let error = writer.write_all(b"cdef").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        writer.flush().await.unwrap();
        writer.close().await.unwrap();
        assert_eq!(core.length(), 1);
    });
}

/// No peer could ever have them.
#[test]
fn a_write_stream_makes_no_blocks_that_are_too_large_to_be_sent() {
    run(async {
        let core = writer(100).await;
        let mut writer = core.write_stream(usize::MAX);
        writer.write_all(&vec![7; 9 << 20]).await.unwrap();
        writer.close().await.unwrap();
        assert_eq!(core.length(), 102);
        let clone = clone_of(&core, true).await;
        let _connection = connect_live(&clone, &core).await;
        let block = clone.get_with(100, GetOptions::default().if_available(true));
        let block = soon("a large block", block).await.unwrap();
        assert_eq!(block.len(), (8 << 20) - (8 << 10));
    });
}

#[test]
fn append_and_create_write_streams_preserve_seq() {
    run(async {
        let core = Hypercore::options().open_memory().await.unwrap();
        assert_eq!(core.append("a").await.unwrap(), 0);
        assert_eq!(core.append_batch(["b", "c"]).await.unwrap(), 1..3);
        let mut writer = core.write_stream(1);
        writer.write_all(b"def").await.unwrap();
        writer.flush().await.unwrap();
        assert_eq!(core.append("g").await.unwrap(), 6);
        let all: Vec<_> = read(&core, ReadOptions::default()).await.concat();
        assert_eq!(all, b"abcdefg");
    });
}

#[test]
fn writes_are_batched() {
    run(async {
        let directory = tempfile::tempdir().unwrap();
        // What is written while an append waits for the disk goes into the next one.
        let core = Hypercore::open(directory.path()).await.unwrap();
        let mut events = core.events();
        let mut writer = core.write_stream(1);
        writer.write_all(&[7; 100]).await.unwrap();
        writer.flush().await.unwrap();
        assert_eq!(core.length(), 100);
        let batches = drain(&mut events).await.len();
        assert!(batches < 10, "{batches} batches for 100 blocks");
    });
}

#[test]
fn a_write_stream_for_a_reader_fails() {
    run(async {
        let clone = clone_of(&writer(1).await, true).await;
        let mut writer = clone.write_stream(1024);
        writer.write_all(b"no").await.unwrap();
        let error = writer.flush().await.unwrap_err();
        let error = error.get_ref().unwrap().downcast_ref::<Error>();
        assert!(matches!(error, Some(Error::NotWritable)), "{error:?}");
    });
}

#[test]
fn read_streams_from_start_to_end() {
    run(async {
        let core = writer(10).await;
        let all: Vec<_> = (0..10).map(|index| format!("block {index}")).collect();
        assert_eq!(read(&core, ReadOptions::default()).await, all);
        assert_eq!(read(&core, (3..7).into()).await, all[3..7]);
        assert_eq!(
            read(&core, read_options(|options| options.start = 8)).await,
            all[8..]
        );
        assert!(
            read(&core, read_options(|options| options.start = 11))
                .await
                .is_empty()
        );
        // JS: an end before the start never ends.
        assert!(
            read(
                &core,
                read_options(|options| {
                    options.start = 5;
                    options.end = Some(2);
                })
            )
            .await
            .is_empty()
        );
    });
}

#[test]
fn a_snapshot_ends_where_it_began_and_a_stream_without_does_not() {
    run(async {
        let core = writer(1).await;
        let mut snapshot = core.read_stream(ReadOptions::default());
        // JS: ends at once with nothing.
        let mut following = core.read_stream(read_options(|options| options.snapshot = false));
        core.append("later").await.unwrap();
        assert_eq!(snapshot.next().await.unwrap().unwrap(), "block 0");
        assert!(snapshot.next().await.is_none());
        assert_eq!(following.next().await.unwrap().unwrap(), "block 0");
        assert_eq!(following.next().await.unwrap().unwrap(), "later");
        assert!(following.next().await.is_none());
    });
}

#[test]
fn live_and_tail_wait_for_what_comes() {
    run(async {
        let core = writer(2).await;
        let mut live = core.read_stream(ReadOptions::live());
        let mut tail = core.read_stream(read_options(|options| {
            options.live = true;
            options.tail = true;
        }));
        for index in 0..2 {
            let block = live.next().await.unwrap().unwrap();
            assert_eq!(block, format!("block {index}"));
        }
        assert!(poll_once(live.next()).await.is_none());
        assert!(poll_once(tail.next()).await.is_none());
        core.append("next").await.unwrap();
        assert_eq!(soon("live", live.next()).await.unwrap().unwrap(), "next");
        assert_eq!(soon("tail", tail.next()).await.unwrap().unwrap(), "next");
    });
}

/// It ended before it began. JS: so it does.
#[test]
fn a_tail_follows_without_being_told_to() {
    run(async {
        let core = writer(2).await;
        let mut tail = core.read_stream(ReadOptions::default().tail(true));
        let mut to_an_end = core.read_stream(ReadOptions::default().tail(true).end(3));
        assert!(poll_once(tail.next()).await.is_none(), "it has ended");
        for block in ["c", "d"] {
            core.append(block).await.unwrap();
            assert_eq!(soon("a block", tail.next()).await.unwrap().unwrap(), block);
        }
        assert!(poll_once(tail.next()).await.is_none(), "it has ended");
        assert_eq!(to_an_end.next().await.unwrap().unwrap(), "c");
        assert!(to_an_end.next().await.is_none());
    });
}

/// JS: reads to the end that was given, too.
#[test]
fn a_live_stream_with_an_end_ends_there() {
    run(async {
        let core = writer(1).await;
        let mut live = core.read_stream(ReadOptions::live().end(2));
        assert_eq!(live.next().await.unwrap().unwrap(), "block 0");
        assert!(poll_once(live.next()).await.is_none());
        core.append_batch(["b", "c"]).await.unwrap();
        assert_eq!(soon("a block", live.next()).await.unwrap().unwrap(), "b");
        assert!(soon("the end", live.next()).await.is_none());
    });
}

/// To read at the end of a file is ordinary, and whoever copies does it when a flush takes its time.
#[test]
fn streams_can_be_polled_after_their_end() {
    run(async {
        let core = writer(3).await;
        let mut blocks = core.read_stream((2..).into());
        let mut values = core.with_codec(Utf8).read_stream((2..).into());
        let mut missing = core.read_stream(ReadOptions::from(3..4).wait(false));
        assert!(blocks.next().await.unwrap().is_ok());
        assert!(values.next().await.unwrap().is_ok());
        assert!(missing.next().await.unwrap().is_err());
        for _ in 0..3 {
            assert!(blocks.next().await.is_none());
            assert!(values.next().await.is_none());
            assert!(missing.next().await.is_none());
        }
        let mut bytes = core.byte_stream(14..);
        let mut read = Vec::new();
        bytes.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"block 2");
        for _ in 0..3 {
            assert_eq!(bytes.read(&mut [0; 8]).await.unwrap(), 0);
        }
        // A flush that waits for the disk.
        let directory = tempfile::tempdir().unwrap();
        let copy = Hypercore::open(directory.path()).await.unwrap();
        let mut writer = copy.write_stream(4);
        let copied = io::copy(core.byte_stream(..), &mut writer).await.unwrap();
        assert_eq!((copied, copy.byte_length()), (21, 21));
    });
}

#[test]
fn closing_all_streams_on_close() {
    run(async {
        let core = writer(0).await;
        let mut live = core.read_stream(ReadOptions::live());
        assert!(poll_once(live.next()).await.is_none());
        let mut bytes = core.byte_stream(0..10);
        let mut buffer = [0; 10];
        assert!(poll_once(bytes.read(&mut buffer)).await.is_none());
        core.close().await.unwrap();
        let last = soon("the end", live.next()).await;
        assert!(matches!(last, Some(Err(Error::Closed))), "{last:?}");
        assert!(live.next().await.is_none());
        assert!(soon("the end", bytes.read(&mut buffer)).await.is_err());
    });
}

#[test]
fn a_read_stream_says_what_is_missing() {
    run(async {
        let core = writer(3).await;
        core.clear(1..2).await.unwrap();
        let mut local = core.read_stream(read_options(|options| options.wait = false));
        assert!(local.next().await.unwrap().is_ok());
        let missing = local.next().await;
        assert!(
            matches!(missing, Some(Err(Error::BlockNotStored { index: 1 }))),
            "{missing:?}"
        );
        assert!(local.next().await.is_none(), "ends after an error");

        let mut available = core.read_stream(read_options(|options| {
            options.start = 1;
            options.if_available = true;
        }));
        let missing = soon("a refusal", available.next()).await;
        assert!(matches!(missing, Some(Err(Error::NotAvailable))));

        let mut timed = core.read_stream(read_options(|options| {
            options.start = 1;
            options.timeout = Some(std::time::Duration::from_millis(1));
        }));
        let missing = soon("a timeout", timed.next()).await;
        assert!(matches!(missing, Some(Err(Error::TimedOut))));
    });
}

/// The first block read from a peer brings the next ones, so that they are there when they are
/// read; of those beyond the batch nobody speaks.
#[test]
fn a_read_stream_asks_ahead() {
    run(async {
        let core = writer(50).await;
        let clone = clone_of(&core, true).await;
        let _connection = connect_live(&clone, &core).await;
        soon("the length", clone.update()).await.unwrap();
        let mut events = clone.events();
        let mut blocks = clone.read_stream(read_options(|options| options.batch = 10));
        soon("a block", blocks.next()).await.unwrap().unwrap();
        event(&mut events, |event| {
            matches!(event, Event::Download { index: 9, .. })
        })
        .await;
        assert_eq!(clone.downloaded(..), 10);
        assert_eq!(clone.downloaded(10..), 0);
        let rest: Vec<_> = soon("the rest", blocks.try_collect()).await.unwrap();
        let rest: Vec<Bytes> = rest;
        assert_eq!(rest.len(), 49);
        assert_eq!(clone.downloaded(..), 50);
    });
}

/// What a reader had in front of it counted as wanted until the last of it was there.
#[test]
fn what_is_cleared_behind_a_reader_does_not_come_again() {
    run(async {
        let core = writer(1000).await;
        for reads_bytes in [false, true] {
            let clone = clone_of(&core, true).await;
            let _connection = connect_live(&clone, &core).await;
            soon("the length", clone.update()).await.unwrap();
            let mut blocks = clone.read_stream((..).into());
            let mut bytes = clone.byte_stream(..);
            for index in 0..1000 {
                let block = if reads_bytes {
                    let mut block = vec![0; format!("block {index}").len()];
                    soon("bytes", bytes.read_exact(&mut block)).await.unwrap();
                    block.into()
                } else {
                    soon("a block", blocks.next()).await.unwrap().unwrap()
                };
                assert_eq!(block, format!("block {index}"));
                clone.clear(index..=index).await.unwrap();
            }
            assert_eq!(clone.stats().downloaded_blocks, 1000);
            assert_eq!(clone.downloaded(..), 0);
        }
    });
}

#[test]
fn a_byte_stream_reads_across_blocks_of_a_peer() {
    run(async {
        let core = Hypercore::options().open_memory().await.unwrap();
        let blocks = ["hello ", "", "big", " ", "world"];
        core.append_batch(blocks).await.unwrap();
        let clone = clone_of(&core, true).await;
        let _connection = connect_live(&clone, &core).await;
        soon("the length", clone.update()).await.unwrap();
        let mut text = String::new();
        let mut bytes = clone.byte_stream(8..12);
        soon("bytes", bytes.read_to_string(&mut text))
            .await
            .unwrap();
        assert_eq!(text, "g wo");
        assert!(!clone.has(0), "what lies before is not fetched");
        // Beyond the end it waits for more.
        let mut rest = clone.byte_stream(13..16);
        let mut buffer = [0; 3];
        rest.read_exact(&mut buffer[..2]).await.unwrap();
        let mut more = std::pin::pin!(rest.read_exact(&mut buffer[2..]));
        assert!(poll_once(&mut more).await.is_none());
        core.append("!").await.unwrap();
        soon("more", more).await.unwrap();
        assert_eq!(&buffer, b"ld!");
    });
}

/// A peer that had them may be gone.
#[test]
fn a_byte_stream_need_not_wait_for_ever() {
    run(async {
        let core = writer(3).await;
        core.clear(1..2).await.unwrap();
        let fails = async |core: &Hypercore, options, wanted: fn(&Error) -> bool| {
            let mut bytes = core.byte_stream_with(3..14, options);
            let mut read = Vec::new();
            let error = soon("an end", bytes.read_to_end(&mut read)).await;
            let error = error.unwrap_err().into_inner().unwrap();
            let error = error.downcast_ref::<Error>().unwrap();
            assert!(wanted(error), "{options:?}: {error:?}");
            read
        };
        let is_missing = |error: &Error| matches!(error, Error::BlockNotStored { index: 1 });
        let read = fails(&core, GetOptions::local(), is_missing).await;
        assert_eq!(read, b"ck 0");
        let available = GetOptions::default().if_available(true);
        let is_unavailable = |error: &Error| matches!(error, Error::NotAvailable);
        let read = fails(&core, available, is_unavailable).await;
        assert_eq!(read, b"ck 0");
        // Not even the place of the first byte is known.
        let clone = clone_of(&core, true).await;
        fails(&clone, available, is_unavailable).await;
        let is_unknown = |error: &Error| matches!(error, Error::OutOfBounds { offset: 3, .. });
        fails(&clone, GetOptions::local(), is_unknown).await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever is written in whatever pieces is read in whatever range.
    #[test]
    fn bytes_in_are_bytes_out(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20),
        block_size in 1_usize..50,
        (start, end) in (0_usize..400, 0_usize..400),
        flushes in any::<u32>(),
    ) {
        let all = pieces.concat();
        let (start, end) = (start.min(all.len()), end.min(all.len()));
        run(async {
            let core = Hypercore::options().open_memory().await.unwrap();
            let mut writer = core.write_stream(block_size);
            for (index, piece) in pieces.iter().enumerate() {
                writer.write_all(piece).await.unwrap();
                if flushes & (1 << index) != 0 {
                    writer.flush().await.unwrap();
                }
            }
            writer.close().await.unwrap();
            assert_eq!(read(&core, ReadOptions::default()).await.concat(), all);
            let mut part = Vec::new();
            core.byte_stream(start as u64..end as u64).read_to_end(&mut part).await.unwrap();
            assert_eq!(part, all.get(start..end).unwrap_or_default());
        });
    }
}

// ---- test/value-encoding.js -----------------------------------------------------------------

/// A codec of one's own: numbers in hexadecimal.
struct Hexadecimal;

impl Codec for Hexadecimal {
    type Value = u64;

    fn encode(&self, value: &u64) -> Result<Bytes, CodecError> {
        if *value == 13 {
            return Err("unlucky".into());
        }
        Ok(format!("{value:x}").into())
    }

    fn decode(&self, bytes: Bytes) -> Result<u64, CodecError> {
        Ok(u64::from_str_radix(std::str::from_utf8(&bytes)?, 16)?)
    }
}

#[test]
fn basic_value_encoding() {
    run(async {
        let core = Hypercore::options().open_memory().await.unwrap();
        let numbers = core.with_codec(Hexadecimal);
        assert_eq!(numbers.append(&255).await.unwrap(), 0);
        assert_eq!(numbers.append_batch([16, 1]).await.unwrap(), 1..3);
        assert_eq!(numbers.get(0).await.unwrap(), 255);
        assert_eq!(numbers.head().await.unwrap(), 1);
        let local = GetOptions::local();
        assert_eq!(numbers.head_with(local).await.unwrap(), 1);
        assert_eq!(numbers.get_batch_with(1.., local).await.unwrap(), [16, 1]);
        assert_eq!(numbers.get_batch(..2).await.unwrap(), [255, 16]);
        assert_eq!(numbers.get_batch(..).await.unwrap(), [255, 16, 1]);
        assert_eq!(core.get(0).await.unwrap(), "ff");
        let texts = core.with_codec(Utf8);
        assert_eq!(texts.get(1).await.unwrap(), "10");
        // By value or not, as in a batch.
        assert_eq!(numbers.append(17).await.unwrap(), 3);
        assert_eq!(texts.append("f".to_owned()).await.unwrap(), 4);
        assert_eq!(numbers.get_batch(3..).await.unwrap(), [17, 15]);
    });
}

/// JS: a codec that throws leaves every later append hanging.
#[test]
fn a_value_that_cannot_be_encoded_changes_nothing() {
    run(async {
        let core = Hypercore::options().open_memory().await.unwrap();
        let numbers = core.with_codec(Hexadecimal);
        let refused = numbers.append_batch([1, 13, 2]).await;
        assert!(matches!(refused, Err(Error::Encode(_))), "{refused:?}");
        assert_eq!(numbers.append(&2).await.unwrap(), 0);
    });
}

#[test]
fn value_encoding_read_stream() {
    run(async {
        let core = Hypercore::options().open_memory().await.unwrap();
        core.append_batch(["a", "not a number", "b"]).await.unwrap();
        // A program can keep the stream beside the core, or in place of it.
        struct Reader(TypedReadStream<Hexadecimal>);
        let reader = Reader(
            core.with_codec(Hexadecimal)
                .read_stream(ReadOptions::default()),
        );
        let values: Vec<_> = reader.0.collect().await;
        assert!(
            matches!(values[..], [Ok(10), Err(Error::Decode(_)), Ok(11)]),
            "{values:?}"
        );
    });
}

#[test]
fn value_encoding_over_a_connection() {
    run(async {
        let core = Hypercore::options().open_memory().await.unwrap();
        core.with_codec(Hexadecimal).append(&77).await.unwrap();
        let clone = clone_of(&core, true).await;
        let _connection = connect_live(&clone, &core).await;
        let value = clone.with_codec(Hexadecimal);
        let value = value.get_with(0, GetOptions::default());
        assert_eq!(soon("a value", value).await.unwrap(), 77);
    });
}

/// As Node writes it, so that either can read the other: with a newline.
#[cfg(feature = "json")]
#[test]
fn json_is_text_and_a_newline() {
    use hypercore::Json;

    run(async {
        let core = Hypercore::options().open_memory().await.unwrap();
        let values = core.with_codec(Json::<serde_json::Value>::new());
        let value = serde_json::json!({ "hello": ["world", 1, null] });
        values.append(&value).await.unwrap();
        assert_eq!(
            core.get(0).await.unwrap(),
            "{\"hello\":[\"world\",1,null]}\n"
        );
        assert_eq!(values.get(0).await.unwrap(), value);
        core.append("{").await.unwrap();
        assert!(matches!(values.get(1).await, Err(Error::Decode(_))));
    });
}

#[test]
fn options_are_written_as_one_expression() {
    run(async {
        let core = writer(5).await;
        for (options, blocks) in [
            ((..).into(), 0..5),
            ((3..).into(), 3..5),
            (ReadOptions::default().start(1).end(3), 1..3),
            (ReadOptions::from(2..9).wait(false).end(4), 2..4),
            ((..2).into(), 0..2),
            ((1..=2).into(), 1..3),
            ((..=2).into(), 0..3),
        ] {
            let expected: Vec<_> = blocks.map(|index| format!("block {index}")).collect();
            assert_eq!(read(&core, options).await, expected, "{options:?}");
        }
        let options = SeekOptions::default().wait(false).blocks(..7);
        assert_eq!((options.wait, options.blocks.clone()), (false, 0..7));
        assert_eq!(core.seek_with(10, options).await.unwrap().index, 1);
        let options = UpdateOptions::default().min_length(3);
        assert_eq!(core.update_with(options).await.unwrap(), 5);
        let options = DownloadOptions::default().order(Order::Random).hash(true);
        soon("what is here", core.download_with(..5, options))
            .await
            .unwrap();
    });
}
