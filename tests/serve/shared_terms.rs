//! The terms of a city that several processes share: known to every process and command, whichever machine they are on.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::entries;
use crate::front::Front;
use crate::process::{Shared, Station, gatebell, printed};
use crate::servers::Servers;
use crate::town::tap;
use crate::{gentle, simulator};

/// Writes the town's term as the file `file` of a term called `name`, with `price` hundredths of NT$ a message.
fn term_file(station: &Station, file: &str, name: &str, price: u32) -> PathBuf {
    let lines = fs::read_to_string(&station.town.term).unwrap();
    let lines = lines.lines().map(|line| match line.split_once(" = ") {
        Some(("name", _)) => format!("name = {name:?}\n"),
        Some(("sms_price", _)) => format!("sms_price = {price}\n"),
        _ => format!("{line}\n"),
    });
    let path = station.data.with_file_name(file);
    fs::write(&path, lines.collect::<String>()).unwrap();
    path
}

#[tokio::test]
async fn a_term_that_one_process_serves_is_known_on_every_machine_and_means_one_thing() {
    let sim = simulator(gentle()).await;
    let callbacks = Front::open().await;
    let shared = Shared {
        servers: Servers::Common,
        processes_max: 2,
        session_timeout: Duration::from_secs(6),
        callbacks: callbacks.address,
    };
    let here = Station::sharing(1, &sim, &shared);
    let there = here.another("there");
    let fair = term_file(&here, "fair.toml", "fair", 75);
    let mut command = gatebell();
    command.args(["serve", "--term"]).arg(&fair);
    command.arg("--config").arg(&here.configuration).arg("--data").arg(&here.data);
    let mut serving = here.serve_by(command).await;
    callbacks.put_behind([serving.callbacks_address()]);
    serving.until_ready("readiness", |status, _| status == 200).await;

    // On another machine, which has neither served it nor its file.
    let text = fs::read_to_string(&fair).unwrap();
    let bill = there.gatebell(&["bill"]);
    assert!(printed(&bill).contains("term fair, as it is served on"), "{}", printed(&bill));
    assert!(printed(&bill).contains("term fair: all 1 lines are drafts"), "{}", printed(&bill));
    let shown = there.gatebell(&["term", "show", "fair"]);
    assert_eq!(String::from_utf8(shown.stdout).unwrap(), text);
    let other = term_file(&here, "other.toml", "fair", 80);
    let other = other.to_str().unwrap();
    for command in [["term", "close", other, "--force"].as_slice(), &["serve", "--term", other]] {
        let refused = there.gatebell(command);
        assert_eq!(refused.status.code(), Some(1), "{command:?}");
        assert!(printed(&refused).contains("term fair is being served on"), "{}", printed(&refused));
    }

    assert_eq!(serving.report(&[tap(0)]).await.unwrap().0, 202);
    here.until_ledger("the charge", |ledger| !entries(ledger, "charged").is_empty()).await;
    assert!(serving.stop("TERM").await.success());
    let refused = there.gatebell(&["serve", "--term", other]);
    assert!(printed(&refused).contains("term fair was billed on"), "{}", printed(&refused));
    fs::remove_file(&fair).unwrap();
    let closed = there.gatebell(&["term", "close", "fair", "--force"]);
    assert!(printed(&closed).contains("term fair is closed"), "{}", printed(&closed));
}
