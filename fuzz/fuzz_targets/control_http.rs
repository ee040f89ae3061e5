#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| spa_fuzz_targets::control_http::run(data));
