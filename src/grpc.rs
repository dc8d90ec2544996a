//! The local edge: the gRPC server. Only here: tonic and the generated types (the command line's client side uses them too).
//!
//! `listen` accepts and serves connections; `publish`, `subscribe` and `admin` are the services; `convert` and `status` translate;
//! `deadline` reads what the caller is willing to wait.

pub mod admin;
mod answers;
mod convert;
mod deadline;
mod deliveries;
mod framing;
mod identity;
mod intake;
pub mod listen;
mod measure;
pub mod proto;
mod publish;
mod settle;
pub mod status;
mod subscribe;
mod tls;
mod tokens;

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use tonic::{server::NamedService, service::RoutesBuilder};
use tonic_health::{ServingStatus, server::HealthReporter};

// The first for `benches/instructions.rs`.
use self::{
    answers::Streams,
    intake::Rooms,
    listen::{Door, Listener},
    proto::{
        admin_service_server::AdminServiceServer, publisher_service_server::PublisherServiceServer,
        subscriber_service_server::SubscriberServiceServer,
    },
    tls::Tls,
    tokens::Tokens,
};
pub use self::{convert::records, tokens::tokens_in};
use crate::{
    access::Access,
    config::Config,
    consume::Pool,
    failure::{Failure, Reason},
    lifecycle::{Lifecycle, Phase},
    metrics,
    publish::Publisher,
};

/// What a refused caller is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

type Publish = PublisherServiceServer<publish::Service>;
type Subscribe = SubscriberServiceServer<subscribe::Service>;
type Admin = AdminServiceServer<admin::Service>;

/// How often certificates and tokens are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// The services, who may use them, and what tells their health.
#[expect(missing_debug_implementations, reason = "tonic's router shows nothing")]
pub struct Server {
    door: Door,
    /// `grpc.health.v1`, overall and by service.
    pub health: Health,
}

impl Server {
    /// Serves a listener until the sidecar stops and the last connection has ended.
    pub fn serve(&self, listener: Listener) -> impl Future<Output = ()> + Send + 'static {
        listener.serve(self.door.clone())
    }

    /// Takes over new certificates and tokens; never ends.
    pub fn keep_fresh(&self) -> impl Future<Output = ()> + Send + 'static {
        let (tls, tokens) = (self.door.tls.clone(), self.door.tokens.clone());
        async move {
            loop {
                tokio::time::sleep(LOOK).await;
                if let Some(tls) = &tls {
                    tls.refresh();
                }
                if let Some(tokens) = &tokens {
                    tokens.refresh();
                }
            }
        }
    }
}

/// Builds the services. The error is for the operator.
pub fn server(
    config: &Arc<Config>,
    lifecycle: &Lifecycle,
    publisher: Publisher,
    pool: Pool,
    admin: admin::Service,
) -> Result<Server, String> {
    let listen = &config.listen;
    let tokens = match &listen.tokens_file {
        None => None,
        Some(file) => Some(Arc::new(Tokens::open(file).map_err(|error| {
            format!("listen.tokens_file: {}: {error}", file.display())
        })?)),
    };
    let tls = match &listen.tls {
        None => None,
        Some(files) => Some(Arc::new(
            Tls::open(files, tokens.is_some()).map_err(|error| format!("listen.tls: {error}"))?,
        )),
    };
    let access = Access::new(&config.access);
    measure::register();
    let streams = Streams::new(config.listen.max_streams);
    let limit = config.listen.max_message_bytes;
    let rooms = Rooms::new(publisher.clone(), limit);
    let publish = publish::Service::new(
        publisher,
        access.clone(),
        lifecycle.clone(),
        streams.clone(),
        limit,
    );
    let subscribe = subscribe::Service::new(pool, access, lifecycle.clone(), streams);
    let (reporter, health) = tonic_health::server::health_reporter();
    let mut routes = RoutesBuilder::default();
    routes
        .add_service(Publish::new(publish).max_decoding_message_size(limit))
        .add_service(Subscribe::new(subscribe).max_decoding_message_size(limit))
        .add_service(Admin::new(admin))
        .add_service(health)
        .add_service(reflection().build_v1().map_err(|error| error.to_string())?)
        .add_service(
            reflection()
                .build_v1alpha()
                .map_err(|error| error.to_string())?,
        );
    let door = Door {
        routes: routes.routes(),
        lifecycle: lifecycle.clone(),
        tls,
        tokens,
        rooms,
        places: Arc::new(Semaphore::new(listen.max_connections)),
    };
    Ok(Server {
        door,
        health: Health(reporter),
    })
}

fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// Tells `grpc.health.v1` what is served.
#[derive(Clone, Debug)]
pub struct Health(HealthReporter);

impl Health {
    /// Says what is served now.
    pub async fn set(&self, publish: bool, subscribe: bool) {
        let status = |serving| {
            if serving {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            }
        };
        let services = [
            ("", status(publish && subscribe)),
            (Publish::NAME, status(publish)),
            (Subscribe::NAME, status(subscribe)),
            (Admin::NAME, ServingStatus::Serving),
        ];
        for (name, status) in services {
            self.0.set_service_status(name, status).await;
        }
    }
}

/// Refuses new publishes of a stopping sidecar.
fn refuse_when_stopping(lifecycle: &Lifecycle) -> Result<(), Failure> {
    refuse(lifecycle.is_stopping())
}

/// Refuses new subscriptions of a draining sidecar.
fn refuse_when_draining(lifecycle: &Lifecycle) -> Result<(), Failure> {
    refuse(lifecycle.phase() == Phase::Draining)
}

fn refuse(refused: bool) -> Result<(), Failure> {
    if refused {
        metrics::connections().refused(Reason::Draining);
        return Err(
            Failure::not_persisted(Reason::Draining, "the sidecar is stopping")
                .with_retry_after(RETRY_AFTER),
        );
    }
    Ok(())
}
