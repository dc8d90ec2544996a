//! The network between the sidecar and each broker: a proxy at the address that the broker advertises, which can be cut.

use std::net::TcpListener as Bound;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Open,
    /// Connections are closed, and new ones too.
    Cut,
    /// Connections stay, and nothing gets through; it comes later, unless the way is cut.
    Blocked,
    /// The same for what the broker says: it hears all.
    Deaf,
}

/// Ends with this.
pub struct Network {
    ports: Vec<u16>,
    bound: Vec<Bound>,
    ways: Vec<watch::Sender<Way>>,
    _tasks: JoinSet<()>,
}

impl Network {
    /// Ports for so many brokers; nothing is accepted yet.
    pub fn of(brokers: usize) -> Self {
        let bind = |_| {
            let bound = Bound::bind("127.0.0.1:0").unwrap();
            bound.set_nonblocking(true).unwrap();
            bound
        };
        let bound: Vec<Bound> = (0..brokers).map(bind).collect();
        let port = |bound: &Bound| bound.local_addr().unwrap().port();
        Self {
            ports: bound.iter().map(port).collect(),
            bound,
            ways: Vec::new(),
            _tasks: JoinSet::new(),
        }
    }

    pub fn ports(&self) -> String {
        let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
        ports.join(",")
    }

    /// Where clients begin.
    pub fn bootstrap(&self) -> String {
        let address = |port| format!("localhost:{port}");
        let addresses: Vec<String> = self.ports.iter().map(address).collect();
        addresses.join(",")
    }

    /// Leads to brokers, `address,address,…` in the order of the ports.
    pub fn lead_to(&mut self, brokers: &str) {
        for (bound, broker) in self.bound.drain(..).zip(brokers.split(',')) {
            let (sender, way) = watch::channel(Way::Open);
            let listener = TcpListener::from_std(bound).unwrap();
            self._tasks.spawn(serve(listener, broker.to_owned(), way));
            self.ways.push(sender);
        }
    }

    /// Changes the way to a broker, counted from 1.
    pub fn set(&self, broker: u64, way: Way) {
        self.ways[broker as usize - 1].send_replace(way);
    }
}

async fn serve(listener: TcpListener, broker: String, way: watch::Receiver<Way>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted.unwrap();
                if *way.borrow() != Way::Cut {
                    connections.spawn(carry(client, broker.clone(), way.clone()));
                }
            }
            Some(done) = connections.join_next() => done.unwrap(),
        }
    }
}

async fn carry(client: TcpStream, broker: String, mut way: watch::Receiver<Way>) {
    // A broker that is down.
    let Ok(server) = TcpStream::connect(broker).await else {
        return;
    };
    let (asks, told) = client.into_split();
    let (answers, asked) = server.into_split();
    tokio::select! {
        () = pass(asks, asked, way.clone(), &[Way::Blocked]) => {}
        () = pass(answers, told, way.clone(), &[Way::Blocked, Way::Deaf]) => {}
        _ = way.wait_for(|way| *way == Way::Cut) => {}
    }
}

/// Passes bytes on, but not while the way is one of these.
async fn pass(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut way: watch::Receiver<Way>,
    stops: &[Way],
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let is_cut = match way.wait_for(|way| !stops.contains(way)).await {
            // What was held up until then is lost.
            Ok(way) => *way == Way::Cut,
            Err(_) => true,
        };
        if is_cut || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
