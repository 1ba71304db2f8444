//! What we repair is whole for Node, too, and it is Node that gives back what was lost.

use std::fs;

use crate::blocks::Spec;
use crate::peers::{Seeder, Side, check_whole, make};
use crate::stage::Stage;

#[test]
fn node_finds_a_repaired_log_whole() {
    let spec = Spec("3*4,20*100");
    let stage = Stage::new();
    let whole = make(&stage, "whole", spec);
    let seeder = Seeder::new(&stage, Side::Node, &whole, &[]);
    for (file, offset) in [
        ("data", 15),
        ("tree", 32 + 40 * 7 + 3),
        ("tree", 32 + 40 * 12 + 3),
        ("signatures", 32 + 64 * 22 + 3),
        ("bitfield", 33),
        ("key", 3),
    ] {
        let name = format!("{file}-{offset}");
        let dir = make(&stage, &name, spec);
        let path = dir.join(file);
        let mut bytes = fs::read(&path).unwrap();
        bytes[offset] ^= 0x10;
        fs::write(&path, bytes).unwrap();

        let repair = args!["repair", &dir, "--connect", &seeder.address, "--json"];
        let done = stage.ours(repair).result();
        let dropped = u64::from(file == "data");
        assert_eq!(done["dropped"], dropped, "{name}: {done}");
        assert_eq!(done["fetched"], dropped, "{name}: {done}");
        assert_eq!(
            stage.ours(args!["verify", &dir, "--json"]).result()["ok"],
            true,
            "{name}"
        );
        check_whole(&stage, &dir, spec);
    }
    seeder.stop();
}
