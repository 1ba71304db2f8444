#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| hypercore_storage::fuzzing::storage_open(data));
