//! One process at a time: both sides take the same lock, and say so.

use crate::blocks::Spec;
use crate::peers::{Seeder, Side, check_whole, make};
use crate::stage::Stage;

/// The exit code of a process that finds the log locked.
const LOCKED: Option<i32> = Some(5);

#[test]
fn we_respect_the_lock_of_node() {
    let spec = Spec("3*4");
    let stage = Stage::new();
    let dir = make(&stage, "log", spec);
    let holder = stage.node("lock.js", args![&dir]);
    holder.event("locked");
    let commands = [
        args!["append", &dir, "a"].to_vec(),
        args!["serve", &dir].to_vec(),
        args!["audit", &dir].to_vec(),
    ];
    for command in commands {
        assert_eq!(stage.ours(&command).end().0, LOCKED, "{command:?}");
    }
    holder.output();

    check_whole(&stage, &dir, spec);
    assert_eq!(
        stage.ours(args!["append", &dir, "a", "--json"]).result()["length"],
        4
    );
}

#[test]
fn node_respects_our_lock() {
    let spec = Spec("3*4");
    let stage = Stage::new();
    let dir = make(&stage, "log", spec);
    let seeder = Seeder::new(&stage, Side::Ours, &dir, &[]);
    assert_eq!(stage.node("check.js", args![&dir]).end().0, LOCKED);
    assert_eq!(stage.ours(args!["append", &dir, "a"]).end().0, LOCKED);
    seeder.stop();
    check_whole(&stage, &dir, spec);
}

#[test]
fn a_killed_process_holds_no_lock() {
    let spec = Spec("3*4");
    let stage = Stage::new();
    let dir = make(&stage, "log", spec);
    Seeder::new(&stage, Side::Ours, &dir, &[]).process.kill();
    check_whole(&stage, &dir, spec);
    let holder = stage.node("lock.js", args![&dir]);
    holder.event("locked");
    holder.kill();
    assert_eq!(
        stage.ours(args!["append", &dir, "a", "--json"]).result()["length"],
        4
    );
}
