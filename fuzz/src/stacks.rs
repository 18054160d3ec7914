#![no_main]
#![allow(missing_docs, reason = "a program without a main")]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| etxtbsy_trace_fuzz::stacks(bytes));
