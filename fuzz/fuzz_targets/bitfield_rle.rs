#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| hypercore_bitfield::fuzzing::bitfield_rle(data));
