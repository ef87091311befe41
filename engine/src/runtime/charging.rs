//! Puts proven SMS on the bill: at most one charge a notice, and only for a final proof of success (B1, B4).

use compact_str::CompactString;

use super::retrying;
use super::status::Status;
use crate::invariants::{Invariant, Watch, predicates};
use crate::ledger::{Charge, Event, LedgerEntry};
use crate::notice::Channel;
use crate::ports::ledger::{ChargeVerdict, Ledger};

/// Charges the order of `proof`'s notice, if `proof` proves a delivered SMS that a parent pays for. Tries again until the
/// store has it; repeating it changes nothing.
///
/// `delivered` proves it; so does `accepted` on SMS, since that is written only where the gateway gives no receipts.
pub(crate) async fn charge_if_proven(status: &Status, ledger: &dyn Ledger, term: &str, proof: &LedgerEntry) {
    let Some(charge) = charge_for(term, proof) else { return };
    if !may_be_booked(status.watch(), &charge) {
        return;
    }
    let verdict = retrying(status, "ledger", || ledger.charge(charge.clone())).await;
    let event = match verdict {
        ChargeVerdict::Charged => Event::Charged,
        ChargeVerdict::Adjusted => Event::Adjusted,
    };
    status.count_entries(&[proof.followed_by(event, proof.time)]);
    metrics::counter!("gatebell_charges_total", "verdict" => event.name()).increment(1);
}

/// Whether `charge` is one that a parent owes, asked once more before it is booked (B1, B4): what was not booked can be
/// booked later.
fn may_be_booked(watch: &Watch, charge: &Charge) -> bool {
    let position = charge.proof.position;
    let is_proven = watch.check(Invariant::B1, predicates::proves_success(charge.proof.event), position);
    watch.check(Invariant::B4, predicates::is_payable(charge.kind), position) && is_proven
}

fn charge_for(term: &str, proof: &LedgerEntry) -> Option<Charge> {
    let proves = matches!(proof.event, Event::Delivered | Event::Accepted);
    if !proves || proof.channel != Channel::Sms || !proof.kind.is_charged() {
        return None;
    }
    Some(Charge {
        term: CompactString::new(term),
        pupil: proof.pupil.clone(),
        guardian: proof.guardian.clone(),
        order: proof.order.clone()?,
        day: proof.day,
        kind: proof.kind,
        proof: proof.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{GuardianId, LogPosition, NoticeId, OrderId, PupilId};
    use crate::notice::NoticeKind;
    use crate::time::{Day, Timestamp};

    fn entry(event: Event, channel: Channel, kind: NoticeKind, order: Option<&str>) -> LedgerEntry {
        LedgerEntry {
            notice: NoticeId::from_u128(1),
            position: LogPosition { partition: 0, offset: 0 },
            pupil: PupilId::new("P1").expect("an identifier"),
            guardian: GuardianId::new("G1").expect("an identifier"),
            channel,
            kind,
            day: Day::from_epoch_days(20_000),
            at: Timestamp::from_millis(0),
            event,
            time: Timestamp::from_millis(0),
            attempt: 1,
            order: order.map(|order| OrderId::new(order).expect("an identifier")),
            gateway: None,
            gateway_id: None,
            reason: None,
        }
    }

    #[test]
    fn what_no_parent_owes_is_not_booked_but_counted() {
        let due =
            charge_for("114-1", &entry(Event::Delivered, Channel::Sms, NoticeKind::Arrival, Some("O1")))
                .expect("a passage that was delivered and ordered");
        let unproven =
            Charge { proof: due.proof.followed_by(Event::Submitted, due.proof.time), ..due.clone() };
        let emergency = Charge { kind: NoticeKind::Emergency, ..due.clone() };
        for (charge, broken) in
            [(due, None), (unproven, Some(Invariant::B1)), (emergency, Some(Invariant::B4))]
        {
            let watch = Watch::new();
            assert_eq!(may_be_booked(&watch, &charge), broken.is_none(), "{charge:?}");
            assert_eq!(watch.violations().first().map(|seen| seen.invariant), broken);
        }
    }

    #[test]
    fn only_a_proven_sms_passage_with_an_order_is_charged() {
        let sms = Channel::Sms;
        for (entry, charged) in [
            (entry(Event::Delivered, sms, NoticeKind::Arrival, Some("O1")), true),
            (entry(Event::Accepted, sms, NoticeKind::Departure, Some("O1")), true),
            (entry(Event::Submitted, sms, NoticeKind::Arrival, Some("O1")), false),
            (entry(Event::Failed, sms, NoticeKind::Arrival, Some("O1")), false),
            (entry(Event::Delivered, Channel::App, NoticeKind::Arrival, None), false),
            (entry(Event::Delivered, sms, NoticeKind::Arrival, None), false),
            (entry(Event::Delivered, sms, NoticeKind::Absence, Some("O1")), false),
            (entry(Event::Delivered, sms, NoticeKind::Correction, Some("O1")), false),
            (entry(Event::Delivered, sms, NoticeKind::Emergency, Some("O1")), false),
        ] {
            assert_eq!(charge_for("114-1", &entry).is_some(), charged, "{entry:?}");
        }
    }
}
