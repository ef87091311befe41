//! What a command checks of a shared city before it writes anything: the contact key and the topics.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, AlterConfig, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;

use crate::process::{Shared, Station, printed};
use crate::servers::Servers;
use crate::{gentle, simulator};

/// Of one process, that nobody calls back.
fn shared_by_one() -> Shared {
    Shared {
        servers: Servers::Common,
        callbacks: SocketAddr::from(([127, 0, 0, 1], 9)),
        processes_max: 1,
        session_timeout: Duration::from_secs(6),
    }
}

/// What could not be made leaves no keyspace behind that would be taken for one in use, whose keys are elsewhere.
#[tokio::test]
async fn a_key_that_could_not_be_made_is_made_by_the_next_migration() {
    let shared = shared_by_one();
    let station = Station::about_to_share(1, &simulator(gentle()).await, &shared);
    let contact_key = station.configuration.with_file_name("contact.key");
    symlink("no/such/folder", &contact_key).unwrap();
    let failed = station.gatebell(&["store", "migrate"]);
    assert!(!failed.status.success(), "{}", printed(&failed));
    assert!(!printed(&failed).contains("is in use"), "{}", printed(&failed));

    fs::remove_file(&contact_key).unwrap();
    let migrated = station.gatebell(&["store", "migrate"]);
    assert!(migrated.status.success(), "{}", printed(&migrated));
}

/// What another key has sealed no process could open; and a key that is made for want of a copy would be such a one.
#[tokio::test]
async fn a_machine_without_the_citys_contact_key_is_told_to_copy_it() {
    let shared = shared_by_one();
    let station = Station::sharing(1, &simulator(gentle()).await, &shared);
    let contact_key = station.configuration.with_file_name("contact.key");
    let citys = fs::read_to_string(&contact_key).unwrap();

    let elsewhere = contact_key.with_extension("elsewhere");
    fs::rename(&contact_key, &elsewhere).unwrap();
    let without = printed(&station.gatebell(&["store", "migrate"]));
    assert!(without.contains("is in use: copy the file from a machine that has it"), "{without}");
    assert!(!without.contains("openssl") && !contact_key.exists(), "{without}");
    fs::rename(&elsewhere, &contact_key).unwrap();

    fs::write(&contact_key, "0".repeat(citys.trim_end().len())).unwrap();
    let refused = printed(&station.gatebell(&["protect", "G0", "P0"]));
    assert!(refused.contains("configure the key file that was used when it was written"), "{refused}");

    fs::write(&contact_key, &citys[..8]).unwrap();
    let cut = printed(&station.gatebell(&["store", "migrate"]));
    assert!(cut.contains("there is no contact key in the secret file"), "{cut}");

    fs::write(&contact_key, &citys).unwrap();
    let protected = station.gatebell(&["protect", "G0", "P0"]);
    assert!(protected.status.success(), "{}", printed(&protected));
}

/// A made-up city's taps and changes may carry a made-up time, a real one's are stamped by the brokers alone.
#[tokio::test]
async fn changes_that_their_writer_stamps_are_only_for_a_made_up_city() {
    let station = Station::about_to_share(1, &simulator(gentle()).await, &shared_by_one());
    let town = station.town.directory.to_str().unwrap();
    let done = |command: &[&str]| {
        let answer = station.gatebell(command);
        assert!(answer.status.success(), "{}", printed(&answer));
    };
    done(&["store", "migrate"]);

    stamp(&station, "CreateTime").await;
    let refused = station.gatebell(&["import", "--made-up", town]);
    assert!(!refused.status.success() && printed(&refused).contains("message.timestamp.type=LogAppendTime"));

    stamp(&station, "LogAppendTime").await;
    done(&["import", "--made-up", town]);
    stamp(&station, "CreateTime").await;
    done(&["protect", "G0", "P0"]);
}

/// Lets `stamps` be the registry's timestamps; everything else as Gatebell makes it.
async fn stamp(station: &Station, stamps: &str) {
    let configuration: toml::Table = fs::read_to_string(&station.configuration).unwrap().parse().unwrap();
    let topic = format!("{}.registry", configuration["kafka"]["topic_prefix"].as_str().unwrap());
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", Servers::Common.kafka()).create().unwrap();
    let config = AlterConfig::new(ResourceSpecifier::Topic(&topic))
        .set("message.timestamp.type", stamps)
        .set("cleanup.policy", "compact")
        .set("min.compaction.lag.ms", "172800000");
    let altered = admin.alter_configs(&[config], &AdminOptions::new()).await.unwrap();
    altered.into_iter().for_each(|topic| drop(topic.unwrap()));
    // The broker answers before it acts on it.
    tokio::time::sleep(Duration::from_millis(500)).await;
}
