//! Who calls: known by the connection (Unix user, certificate) and by the call (bearer token), told to the handlers in the request.
//!
//! What always holds: past `Gate` every request carries a [`Caller`], and a call over TCP without a name, where names are asked for, or with
//! a token that is not known, goes no further.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::future::BoxFuture;
use http::{Request, Response, header::AUTHORIZATION};
use tonic::{Status, body::Body, service::Routes};
use tower::Service;

use super::{status::status, tokens::Tokens};
use crate::{
    access::Caller,
    failure::{Failure, Reason},
};

/// Names the caller of each call of one connection.
#[derive(Clone)]
pub(super) struct Gate {
    pub(super) routes: Routes,
    pub(super) caller: Arc<Caller>,
    /// Absent where tokens are not asked for.
    pub(super) tokens: Option<Arc<Tokens>>,
}

impl Gate {
    fn caller<B>(&self, request: &Request<B>) -> Result<Arc<Caller>, Failure> {
        let Some(tokens) = &self.tokens else {
            return Ok(Arc::clone(&self.caller));
        };
        let refuse = |why: &str| Err(Failure::not_persisted(Reason::Unauthenticated, why));
        let Some(header) = request.headers().get(AUTHORIZATION) else {
            return match self.caller.names.is_empty() {
                true => refuse("a bearer token is required (metadata `authorization: Bearer …`)"),
                false => Ok(Arc::clone(&self.caller)),
            };
        };
        let Some(token) = bearer(header.as_bytes()) else {
            return refuse("the authorization is not a bearer token");
        };
        let Some(name) = tokens.name(token) else {
            return refuse("the bearer token is not known");
        };
        let mut caller = Caller::clone(&self.caller);
        caller.names.push(format!("token:{name}"));
        Ok(Arc::new(caller))
    }
}

/// The token of `Bearer …` (RFC 6750, 2.1).
fn bearer(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| token.trim_ascii())
}

impl<B> Service<Request<B>> for Gate
where
    Routes: Service<Request<B>, Response = Response<Body>>,
    <Routes as Service<Request<B>>>::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = <Routes as Service<Request<B>>>::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        <Routes as Service<Request<B>>>::poll_ready(&mut self.routes, context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match self.caller(&request) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                Box::pin(self.routes.call(request))
            }
            Err(failure) => {
                let refused = status(&failure).into_http();
                Box::pin(async { Ok(refused) })
            }
        }
    }
}

/// Who sent a request.
pub(super) fn of<T>(request: &tonic::Request<T>) -> Result<Arc<Caller>, Status> {
    let caller = request.extensions().get::<Arc<Caller>>().cloned();
    // Every listener has its gate.
    caller.ok_or_else(|| status(&Failure::new(Reason::Internal, "internal error")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bearer_token_is_told_from_other_credentials() {
        assert_eq!(bearer(b"Bearer abc"), Some(&b"abc"[..]));
        assert_eq!(bearer(b"bearer  abc "), Some(&b"abc"[..]));
        assert_eq!(bearer(b"Basic abc"), None);
        assert_eq!(bearer(b"Bear"), None);
    }
}
