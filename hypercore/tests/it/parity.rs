//! `PARITY.md` names no test that does not exist, and none that no planted bug was seen by.

use std::{collections::BTreeSet, fs, path::Path};

/// Where the tests of a crate are, by the name that `PARITY.md` has for it.
fn folder(name: &str) -> &'static str {
    match name {
        "it" => "tests/it",
        "interop" => "tests/interop",
        "simulator" => "src/replicate/simulator",
        "merkle" => "../merkle/tests/it",
        "bitfield" => "../bitfield/tests/it",
        "wire" => "../wire/tests/it",
        "storage" => "../storage/tests/it",
        _ => panic!("{name} is no crate's tests"),
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn table() -> String {
    fs::read_to_string(root().join("PARITY.md")).unwrap()
}

/// What stands between backticks, if it is the path of a function: `crate::module::test`, where the module
/// may be in another one.
fn named(table: &str) -> BTreeSet<(&str, &str, &str)> {
    let spans = table
        .lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2));
    spans
        .filter_map(|path| {
            let (tests, rest) = path.split_once("::")?;
            let (module, test) = rest.rsplit_once("::")?;
            Some((tests, module, test))
        })
        .collect()
}

#[test]
fn every_test_that_is_named_exists() {
    let root = root();
    let table = table();
    let named = named(&table);
    assert!(named.len() > 80, "{} tests are named", named.len());
    let missing: Vec<_> = named
        .into_iter()
        .filter(|(tests, module, test)| {
            let file = root
                .join(folder(tests))
                .join(module.replace("::", "/"))
                .with_extension("rs");
            let source = fs::read_to_string(&file).unwrap_or_default();
            // A comma, where a macro makes the test of its first argument.
            ![format!("fn {test}("), format!("{test}, ")]
                .iter()
                .any(|written| source.contains(written))
        })
        .collect();
    assert!(missing.is_empty(), "these do not exist: {missing:#?}");
}

/// Those against Node are beside others of the same row, and do not run everywhere.
#[test]
fn every_test_that_is_named_has_a_bug_to_find() {
    // A crate that was published has no such file.
    let Ok(bugs) = fs::read_to_string(root().join("../.ci/parity")) else {
        return;
    };
    let wanted: BTreeSet<_> = bugs.split_whitespace().collect();
    let table = table();
    let without: Vec<_> = named(&table)
        .into_iter()
        .filter(|(tests, ..)| *tests != "interop")
        .map(|(tests, module, test)| format!("{tests}::{module}::{test}"))
        .filter(|path| !wanted.contains(&path[..]))
        .collect();
    assert!(without.is_empty(), "no bug is planted for {without:#?}");
}
