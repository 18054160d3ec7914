//! Strings for execvp(3), made before the fork because the child must not allocate.

use crate::{host::user::Invoker, text::shown};
use anyhow::{Context, Result};
use libc::c_char;
use std::{
    env,
    ffi::{CString, OsStr, OsString},
    os::unix::ffi::OsStrExt,
    ptr,
};

/// Strings for execvp(3), allocated before the fork because the child must not allocate.
pub(super) struct CStrings {
    pub(super) _strings: Vec<CString>,
    pub(super) pointers: Vec<*const c_char>,
}

impl CStrings {
    pub(super) fn new<S: AsRef<OsStr>>(strings: impl IntoIterator<Item = S>) -> Result<Self> {
        let c_string = |text: S| {
            CString::new(text.as_ref().as_bytes())
                .with_context(|| format!("{} has a NUL byte", shown(text.as_ref())))
        };
        let strings = strings.into_iter().map(c_string).collect::<Result<Vec<_>>>()?;
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect();
        Ok(Self { _strings: strings, pointers })
    }
}

/// The command's environment.
pub(super) fn environment(identity: Option<&Invoker>) -> Vec<(OsString, OsString)> {
    match identity {
        Some(user) => user.environment(env::vars_os()),
        None => env::vars_os().collect(),
    }
}

/// `NAME=value`.
pub(super) fn definition((mut name, value): (OsString, OsString)) -> OsString {
    name.push("=");
    name.push(value);
    name
}
