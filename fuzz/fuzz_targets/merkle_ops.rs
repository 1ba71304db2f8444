#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| hypercore_merkle::fuzzing::merkle_ops(data));
