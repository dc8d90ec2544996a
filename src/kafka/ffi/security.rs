//! Credentials given to a client that is running, and the question whether it reaches a broker.

use std::{ffi::CString, ptr, time::Duration};

use rdkafka::{
    client::{Client, ClientContext},
    types::RDKafkaRespErr,
};
use rdkafka_sys as rd;

use crate::kafka::token::Token;

/// Gives the client a name and a password, used from its next connection on (`rd_kafka_sasl_set_credentials`).
pub(in crate::kafka) fn set_credentials<C: ClientContext>(
    client: &Client<C>,
    username: &str,
    password: &str,
) {
    // Neither has a NUL byte: librdkafka's configuration would not have taken it either.
    let (Ok(username), Ok(password)) = (CString::new(username), CString::new(password)) else {
        return;
    };
    // SAFETY: the client is alive, and librdkafka copies both texts. The error, if any, is ours to destroy.
    unsafe {
        let error = rd::rd_kafka_sasl_set_credentials(
            client.native_ptr(),
            username.as_ptr(),
            password.as_ptr(),
        );
        if !error.is_null() {
            rd::rd_kafka_error_destroy(error);
        }
    }
}

/// Gives the client an OAUTHBEARER token with its extensions, names and values in turn; the crate's own way has no extensions.
/// The error is librdkafka's text, which does not repeat the token.
pub(in crate::kafka) fn set_token<C: ClientContext>(
    client: &Client<C>,
    token: &Token,
    extensions: &[(String, String)],
) -> Result<(), String> {
    let nul = |_| "a NUL byte in a token".to_owned();
    let expires = token.expires_millis();
    let principal = CString::new(token.principal.as_str()).map_err(nul)?;
    let token = CString::new(token.value.expose()).map_err(nul)?;
    let texts: Vec<CString> = extensions
        .iter()
        .flat_map(|(name, value)| [name, value])
        .map(|text| CString::new(text.as_str()).map_err(nul))
        .collect::<Result<_, _>>()?;
    let mut pointers: Vec<_> = texts.iter().map(|text| text.as_ptr()).collect();
    let mut error = [0_u8; 512];
    // SAFETY: the client is alive; every text is NUL-terminated and outlives the call, which copies them; the buffer has the size given.
    let code = unsafe {
        rd::rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            token.as_ptr(),
            expires,
            principal.as_ptr(),
            pointers.as_mut_ptr(),
            pointers.len(),
            error.as_mut_ptr().cast(),
            error.len(),
        )
    };
    match code {
        RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
        _ => {
            let end = error.iter().position(|byte| *byte == 0).unwrap_or(0);
            Err(String::from_utf8_lossy(&error[..end]).into_owned())
        }
    }
}

/// Whether a broker answers within `timeout`; blocks. It asks for nothing but the topics that the client knows.
pub(in crate::kafka) fn reachable<C: ClientContext>(client: &Client<C>, timeout: Duration) -> bool {
    let mut metadata = ptr::null();
    let millis = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the client is alive; a null topic with `all_topics` 0 asks for local topics; the answer is ours to destroy when there is one.
    unsafe {
        let code = rd::rd_kafka_metadata(
            client.native_ptr(),
            0,
            ptr::null_mut(),
            &raw mut metadata,
            millis,
        );
        if !metadata.is_null() {
            rd::rd_kafka_metadata_destroy(metadata);
        }
        code == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR
    }
}
