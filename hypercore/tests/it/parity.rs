//! `PARITY.md` names no test that does not exist.

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

#[test]
fn every_test_that_is_named_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = fs::read_to_string(root.join("PARITY.md")).unwrap();
    // What stands between backticks, if it is the path of a function: `crate::module::test`.
    let named: BTreeSet<_> = table
        .lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
        .filter_map(|path| match path.split("::").collect::<Vec<_>>()[..] {
            [tests, module, test] => Some((tests, module, test)),
            _ => None,
        })
        .collect();
    assert!(named.len() > 80, "{} tests are named", named.len());
    let missing: Vec<_> = named
        .into_iter()
        .filter(|(tests, module, test)| {
            let file = root.join(folder(tests)).join(module).with_extension("rs");
            let source = fs::read_to_string(&file).unwrap_or_default();
            // A comma, where a macro makes the test of its first argument.
            ![format!("fn {test}("), format!("{test}, ")]
                .iter()
                .any(|written| source.contains(written))
        })
        .collect();
    assert!(missing.is_empty(), "these do not exist: {missing:#?}");
}
