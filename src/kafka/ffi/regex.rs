//! Regular expressions of the C library (POSIX extended, regcomp(3)): those that librdkafka matches topics with, so that both mean the same.

use std::{
    ffi::{CStr, CString},
    mem::MaybeUninit,
    ptr,
};

pub(in crate::kafka) struct Regex(libc::regex_t);

impl Regex {
    /// The error is in the library's words.
    pub(in crate::kafka) fn compile(text: &str) -> Result<Self, String> {
        let text = CString::new(text).map_err(|_| "holds a NUL byte".to_owned())?;
        let mut regex = MaybeUninit::uninit();
        // SAFETY: the expression is NUL-terminated, and the place is large enough. After a success it is initialised, and freed once by
        // `drop`; after a failure it may still be asked about, in a buffer of the size given, and is not used again.
        unsafe {
            let flags = libc::REG_EXTENDED | libc::REG_NOSUB;
            let code = libc::regcomp(regex.as_mut_ptr(), text.as_ptr(), flags);
            if code == 0 {
                return Ok(Self(regex.assume_init()));
            }
            let mut said = [0_u8; 256];
            libc::regerror(code, regex.as_ptr(), said.as_mut_ptr().cast(), said.len());
            let said = CStr::from_bytes_until_nul(&said).unwrap_or_default();
            Err(said.to_string_lossy().into_owned())
        }
    }

    pub(in crate::kafka) fn matches(&self, text: &str) -> bool {
        let Ok(text) = CString::new(text) else {
            return false;
        };
        // SAFETY: compiled, and not freed as long as it is borrowed; no places of matches are asked for.
        unsafe { libc::regexec(&raw const self.0, text.as_ptr(), 0, ptr::null_mut(), 0) == 0 }
    }
}

impl Drop for Regex {
    fn drop(&mut self) {
        // SAFETY: compiled by `compile`, freed once.
        unsafe { libc::regfree(&raw mut self.0) }
    }
}
