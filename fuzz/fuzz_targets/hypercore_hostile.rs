#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| hypercore::fuzzing::hypercore_hostile(data));
