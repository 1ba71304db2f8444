//! `hypercore verify`: is everything as it should be?

use std::ops::ControlFlow;

use hypercore::{
    Hypercore, Problem,
    storage::{Directory, FileName},
};
use serde_json::{Value, json};

use crate::{
    args::{Manners, VerifyArgs},
    commands::require_directory,
    errors::{Exit, Failure, Result, bare, how_to_cure, how_to_replace_secret, is_secret_lost},
    output::{Output, blocks, bytes},
};

/// So many problems are shown to people.
const SHOWN: usize = 10;

pub(crate) async fn verify(args: VerifyArgs, manners: &Manners) -> Result<()> {
    let dir = args.dir.as_path();
    require_directory(dir)?;
    let mut output = Output::new(&args.format, manners);
    let watch = watch(&mut output);
    let found = Hypercore::verify_storage_with(Directory::new(dir), watch).await;
    output.done();
    let found = found.map_err(|error| Failure::core(error, dir))?;
    let listed = found.problems.iter().map(|problem| {
        json!({
            "file": problem.file.as_str(),
            "index": problem.index,
            "problem": bare(&problem.problem),
        })
    });
    let (whole, size) = (blocks(found.blocks), bytes(found.bytes));
    let count = found.unlisted.saturating_add(found.problems.len() as u64);
    let mut people = if found.is_ok() {
        format!("{whole} with {size} checked, no damage.")
    } else {
        let problems = if count == 1 { "problem" } else { "problems" };
        format!("{whole} with {size} good, {count} {problems}:")
    };
    for problem in found.problems.iter().take(SHOWN) {
        people += &format!("\n  {}", words(problem));
    }
    if count > SHOWN as u64 {
        people += "\n  and more";
    }
    let mut fields = vec![
        ("ok", found.is_ok().into()),
        ("blocks", found.blocks.into()),
        ("bytes", found.bytes.into()),
        ("problems", Value::Array(listed.collect())),
    ];
    if found.unlisted > 0 {
        fields.push(("unlisted", found.unlisted.into()));
    }
    output.result(&fields, people)?;
    if is_secret_lost(dir) {
        output.remark(format_args!(
            "Nothing can be appended to `{}`: {}",
            dir.display(),
            how_to_replace_secret(dir)
        ));
    }
    let Some(first) = found.problems.first() else {
        return Ok(());
    };
    let cure = how_to_cure(first.file == FileName::Key, dir);
    Err(Failure::new(
        Exit::Damaged,
        format!(
            "the core in `{}` is damaged, first {}; {cure}",
            dir.display(),
            words(first)
        ),
    ))
}

/// Where a problem is and what, to follow on the words that there is one.
pub(crate) fn words(problem: &Problem) -> String {
    format!("{}: {}", problem.file, bare(&problem.problem))
}

/// Draws how far a check has come. One that looks at everything twice begins anew.
pub(crate) fn watch(
    output: &mut Output,
) -> impl FnMut(u64, u64) -> ControlFlow<()> + Send + 'static {
    let bar = output
        .draw(0, "{bar:40} {pos}/{len} blocks checked  {eta}")
        .clone();
    move |checked, all| {
        bar.set_length(all);
        bar.set_position(checked);
        ControlFlow::Continue(())
    }
}
