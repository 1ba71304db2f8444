#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| hypercore::fuzzing::storage_crash(data));
