//! What goes wrong while records are published, one thing after the other, in an order that a seed determines.

use std::{
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{
    BROKERS,
    callers::{Life, Pace},
};
use crate::{
    checker::random::Random,
    kafka::Kafka,
    network::{Network, Way},
    sidecar::Sidecar,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// A broker is killed, and comes back.
    KillBroker,
    /// A broker stands still for a while.
    StopBroker,
    /// Two of three stand still: nothing can be written.
    StopBrokers,
    /// A broker hands its leaders over and ends; when it is back, it gets them back.
    MoveLeaders,
    /// Connections to a broker break, and no other can be made.
    Cut,
    /// Nothing gets to a broker or back.
    Block,
    /// A broker hears the sidecar, and its answers are lost.
    Deafen,
    KillSidecar,
    /// The sidecar is killed while a broker's answers are lost.
    KillDeafSidecar,
    /// The sidecar stands still for a while.
    StopSidecar,
}

const EACH: [Fault; 10] = [
    Fault::KillBroker,
    Fault::StopBroker,
    Fault::StopBrokers,
    Fault::MoveLeaders,
    Fault::Cut,
    Fault::Block,
    Fault::Deafen,
    Fault::KillSidecar,
    Fault::KillDeafSidecar,
    Fault::StopSidecar,
];

/// Each of them, in some order.
fn each(random: &mut Random) -> Vec<Fault> {
    let mut faults = EACH.to_vec();
    for index in (1..faults.len()).rev() {
        faults.swap(index, random.below(index as u64 + 1) as usize);
    }
    faults
}

/// What faults come over.
pub struct Scene {
    pub kafka: Arc<Kafka>,
    pub network: Network,
    pub settings: Vec<(&'static str, String)>,
    pub lives: watch::Sender<Option<Arc<Life>>>,
    /// All that there were, for their logs.
    pub lived: Vec<Arc<Life>>,
    pub random: Random,
    pub begun: Instant,
}

impl Scene {
    /// A sidecar begins to live.
    pub async fn start(&mut self) {
        let (bootstrap, settings) = (self.network.bootstrap(), self.settings.clone());
        let start = move || {
            let settings = settings.iter().map(|(key, value)| (*key, value.as_str()));
            Sidecar::start(&bootstrap, &settings.collect::<Vec<_>>())
        };
        let sidecar = tokio::task::spawn_blocking(start).await.unwrap();
        let number = self.lived.len() as u16;
        let life = Arc::new(Life { number, sidecar });
        self.lived.push(Arc::clone(&life));
        self.lives.send_replace(Some(life));
    }

    /// Lets each fault happen, and with it a share of the records that the pace has; or one after another until all of them are sent.
    pub async fn run(&mut self, pace: &Pace, until_all_are_sent: bool) {
        loop {
            let faults = each(&mut self.random);
            for (number, fault) in faults.iter().enumerate() {
                let share = pace.total * (number as u64 + 1) / faults.len() as u64;
                pace.allow(if until_all_are_sent {
                    pace.total
                } else {
                    share
                });
                self.wait(300..1000).await;
                let (seconds, records) = (self.begun.elapsed().as_secs_f64(), pace.taken());
                eprintln!("{seconds:6.1} s, {records} records: {fault:?}");
                self.happen(*fault).await;
                if until_all_are_sent && pace.is_over() {
                    return;
                }
            }
            if !until_all_are_sent {
                return;
            }
        }
    }

    async fn happen(&mut self, fault: Fault) {
        let broker = 1 + self.random.below(BROKERS);
        match fault {
            Fault::KillBroker => {
                self.break_brokers(["kill", "start"], &[broker], 300..4000)
                    .await
            }
            Fault::StopBroker => {
                self.break_brokers(["pause", "resume"], &[broker], 500..7000)
                    .await
            }
            Fault::StopBrokers => {
                let brokers = [broker, 1 + broker % BROKERS];
                self.break_brokers(["pause", "resume"], &brokers, 7000..8000)
                    .await;
            }
            Fault::MoveLeaders => self.break_brokers(["term", "start"], &[broker], 0..1).await,
            Fault::Cut => self.trouble(broker, Way::Cut, 500..3000).await,
            Fault::Block => self.trouble(broker, Way::Blocked, 500..7000).await,
            Fault::Deafen => self.trouble(broker, Way::Deaf, 500..3000).await,
            Fault::KillSidecar => self.kill_sidecar().await,
            Fault::KillDeafSidecar => {
                self.network.set(broker, Way::Deaf);
                self.wait(100..500).await;
                self.kill_sidecar().await;
                self.network.set(broker, Way::Open);
            }
            Fault::StopSidecar => {
                let life = self.lived.last().expect("one lives");
                life.sidecar.signal("STOP");
                let life = Arc::clone(life);
                self.wait(500..3000).await;
                life.sidecar.signal("CONT");
            }
        }
    }

    /// Brokers are away, and then in step with the others again.
    async fn break_brokers(
        &mut self,
        [away, back]: [&'static str; 2],
        brokers: &[u64],
        millis: Range<u64>,
    ) {
        self.tell(away, brokers).await;
        self.wait(millis).await;
        self.tell(back, brokers).await;
        let kafka = Arc::clone(&self.kafka);
        let healthy = move || kafka.tell("healthy");
        tokio::task::spawn_blocking(healthy).await.unwrap();
    }

    async fn tell(&self, command: &'static str, brokers: &[u64]) {
        let (kafka, brokers) = (Arc::clone(&self.kafka), brokers.to_vec());
        let tell = move || {
            for broker in brokers {
                kafka.tell(&format!("{command} {broker}"));
            }
        };
        tokio::task::spawn_blocking(tell).await.unwrap();
    }

    /// The way to a broker is troubled. Half of the time what was held up is lost.
    async fn trouble(&mut self, broker: u64, way: Way, millis: Range<u64>) {
        self.network.set(broker, way);
        self.wait(millis).await;
        if self.random.one_in(2) || way == Way::Deaf {
            self.network.set(broker, Way::Cut);
            self.wait(50..100).await;
        }
        self.network.set(broker, Way::Open);
    }

    async fn kill_sidecar(&mut self) {
        // Whoever meets the end of it knows that it is over.
        let life = self.lives.send_replace(None).expect("one lives");
        life.sidecar.signal("KILL");
        self.start().await;
    }

    async fn wait(&mut self, millis: Range<u64>) {
        let millis = millis.start + self.random.below(millis.end - millis.start);
        tokio::time::sleep(Duration::from_millis(millis)).await;
    }
}
