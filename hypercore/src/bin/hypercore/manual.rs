//! `hypercore completions` and `hypercore man`: the command line told to shells and to `man`.

use std::{fs, io, path::PathBuf};

use clap::{Args, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use crate::{
    args::{Cli, Format, Manners},
    errors::{Failure, Result, reason},
    output::Output,
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    hypercore completions bash > ~/.local/share/bash-completion/completions/hypercore\n  \
    hypercore completions zsh > ~/.zfunc/_hypercore\n  \
    hypercore completions fish > ~/.config/fish/completions/hypercore.fish")]
pub(crate) struct CompletionsArgs {
    /// Which shell
    shell: Shell,
    #[command(flatten)]
    format: Format,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  hypercore man | man -l -\n  \
    hypercore man --out ~/.local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Write the pages of all commands to this directory, which must exist
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    format: Format,
}

/// Writes a completion script to standard output.
pub(crate) fn completions(args: &CompletionsArgs, manners: &Manners) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "hypercore", &mut script);
    let script = text(script);
    Output::new(&args.format, manners).result(
        &[
            ("shell", args.shell.to_string().into()),
            ("script", script.as_str().into()),
        ],
        script.trim_end(),
    )
}

/// Writes the page of the program to standard output, or the pages of all commands to a directory.
pub(crate) fn man(args: &ManArgs, manners: &Manners) -> Result<()> {
    let mut output = Output::new(&args.format, manners);
    let Some(dir) = &args.out else {
        let mut page = Vec::new();
        let rendered = Man::new(Cli::command()).render(&mut page);
        rendered.map_err(|error| Failure::output(&error))?;
        let page = text(page);
        return output.result(&[("page", page.as_str().into())], page.trim_end());
    };
    let shown = dir.display();
    let unwritable = |error: &io::Error| {
        Failure::failed(format!(
            "the pages cannot be written to `{shown}`: {}",
            reason(error)
        ))
    };
    if !fs::metadata(dir)
        .map_err(|error| unwritable(&error))?
        .is_dir()
    {
        return Err(Failure::failed(format!("`{shown}` is not a directory")));
    }
    let written = clap_mangen::generate_to(Cli::command(), dir);
    written.map_err(|error| unwritable(&error))?;
    output.result(
        &[("directory", shown.to_string().into())],
        format_args!("Wrote the manual pages to `{shown}`."),
    )
}

/// What the generators write is text.
fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}
