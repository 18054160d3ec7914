//! Empty: a library target lets `etxtbsy-trace` name this crate as a build dependency, so that
//! cargo rebuilds it when the eBPF programs change.
#![no_std]
