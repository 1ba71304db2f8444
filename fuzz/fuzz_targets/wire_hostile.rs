#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| hypercore_wire::fuzzing::wire_hostile(data));
