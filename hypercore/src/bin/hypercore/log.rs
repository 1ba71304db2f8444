//! `hypercore log`: what is known of each block.

use std::path::{Path, PathBuf};

use clap::Args;
use data_encoding::HEXLOWER;
use hypercore::{Error, Hypercore, merkle::Node};

use crate::{
    args::{Format, Manners, parse_number},
    commands::{close, open, outside},
    errors::{Failure, Result},
    output::{Output, bytes},
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  hypercore log letters\n  \
    hypercore log letters --start 100 --end 110 --json")]
pub(crate) struct LogArgs {
    /// Directory of the core
    dir: PathBuf,
    /// First block
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = parse_number)]
    start: u64,
    /// One past the last block [default: the length of the core]
    #[arg(long, value_name = "N", value_parser = parse_number)]
    end: Option<u64>,
    #[command(flatten)]
    format: Format,
}

pub(crate) async fn log(args: LogArgs, manners: &Manners) -> Result<()> {
    let dir = args.dir.as_path();
    let core = open(dir).await?;
    let length = core.length();
    let end = args.end.unwrap_or_else(|| length.max(args.start));
    if args.start > end || end > length {
        return Err(outside(&(args.start..end), length, dir));
    }
    let mut output = Output::new(&args.format, manners);
    for index in args.start..end {
        let leaf = leaf(&core, dir, index).await?;
        let held = core.has(index);
        output.result(&fields(index, leaf, held), line(index, leaf, held))?;
        if output.is_unread() {
            break;
        }
    }
    close(&core, dir).await
}

/// The hash and the size of a block, which a clone learns with the block.
async fn leaf(core: &Hypercore, dir: &Path, index: u64) -> Result<Option<Node>> {
    match core.block_info(index).await {
        Ok(leaf) => Ok(Some(leaf)),
        Err(Error::NodeNotStored { .. }) => Ok(None),
        Err(error) => Err(Failure::core(error, dir)),
    }
}

fn fields(index: u64, leaf: Option<Node>, held: bool) -> [(&'static str, serde_json::Value); 4] {
    [
        ("index", index.into()),
        ("size", leaf.map(|leaf| leaf.size).into()),
        ("hash", leaf.map(|leaf| HEXLOWER.encode(&leaf.hash)).into()),
        ("held", held.into()),
    ]
}

fn line(index: u64, leaf: Option<Node>, held: bool) -> String {
    let (hash, size) = match leaf {
        Some(leaf) => (HEXLOWER.encode(&leaf.hash), bytes(leaf.size)),
        None => ("-".repeat(64), "unknown".into()),
    };
    let held = if held { "" } else { "  not held" };
    format!("{index:>8}  {hash}  {size}{held}")
}
