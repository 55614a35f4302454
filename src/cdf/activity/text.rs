//! Texts about an activity: its progress, its end from outside, and its line in the log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::counters::{lock, Activity, AttemptEnd, Counters, Network, Pause, What};
use crate::cdf::error::text::{one_line, shorten};

/// The most resources that a text names one by one; of more it gives the sum.
const NAMED: usize = 3;

/// Characters of a server's words that go into a message, and not only into its detail.
const LONGEST_ANSWER: usize = 160;

/// The account of an activity that is ended from outside.
#[derive(Debug, PartialEq, Eq)]
pub struct Account {
    /// The essence, in one line, to follow the reason for the end.
    pub message: String,
    pub detail: Vec<String>,
}

/// Of a transaction's or of a resource's rows.
#[derive(Clone, Copy, Default)]
struct RowCount {
    all: u64,
    acknowledged: u64,
}

impl Counters {
    fn of(&self) -> RowCount {
        RowCount { all: self.get(|t| &t.rows), acknowledged: self.get(|t| &t.acknowledged) }
    }

    /// How long the rest of its rows will take, at the pace so far. None while that is unknown.
    fn left(&self, now: Instant) -> Option<Duration> {
        let RowCount { all, acknowledged } = self.of();
        let time = now.saturating_duration_since(*self.began.get()?);
        let rest = all.saturating_sub(acknowledged);
        (acknowledged > 0).then(|| time.mul_f64(rest as f64 / acknowledged as f64))
    }
}

impl Activity {
    /// The progress message.
    pub fn progress(&self) -> String {
        self.progress_at(Instant::now())
    }

    fn progress_at(&self, now: Instant) -> String {
        let time = duration(now.saturating_duration_since(self.since));
        let mut text = match self.what {
            What::Delivery => format!("delivered {} in {time}", self.rows_of(grouped)),
            What::Read => format!("read {} {} in {time}", grouped(self.own.of().all), self.own.name),
            What::Question => format!("asking CDF {}, {time} so far", self.own.name),
        };
        if let Some(repeats) = self.repeats() {
            text += &format!(", {repeats}");
        }
        let network = lock(&self.network);
        match network.waits(now) {
            Some(waits) => text += &format!(", {waits}"),
            None => {
                drop(network);
                if let Some(left) = self.left(now) {
                    text += &format!(", about {} left", duration_rounded_up(left));
                }
            }
        }
        text
    }

    /// How long the rest will take: as long as the slowest resource takes, if the pace of all is known.
    fn left(&self, now: Instant) -> Option<Duration> {
        let resources = lock(&self.resources);
        let unfinished = resources.iter().filter(|counters| {
            let RowCount { all, acknowledged } = counters.of();
            acknowledged < all
        });
        unfinished.map(|counters| counters.left(now)).collect::<Option<Vec<_>>>()?.into_iter().max()
    }

    /// `3 of 9 events and 1 of 1 timeseries`.
    fn rows_of(&self, number: impl Fn(u64) -> String) -> String {
        let resources = lock(&self.resources);
        let one = |RowCount { all, acknowledged }: RowCount, name: &str| {
            format!("{} of {} {name}", number(acknowledged), number(all))
        };
        if resources.len() <= NAMED {
            let each: Vec<String> =
                resources.iter().map(|counters| one(counters.of(), &counters.name)).collect();
            return listed(&each);
        }
        let sum = resources.iter().fold(RowCount::default(), |sum, counters| {
            let rows = counters.of();
            RowCount { all: sum.all + rows.all, acknowledged: sum.acknowledged + rows.acknowledged }
        });
        one(sum, &format!("rows of {} resources", resources.len()))
    }

    /// How many requests were repeated, and why. None if none was.
    fn repeats(&self) -> Option<String> {
        let mut reasons: Vec<(String, u64)> = Vec::new();
        for counters in self.all_counters() {
            for (reason, count) in lock(&counters.reasons).iter() {
                match reasons.iter_mut().find(|(known, _)| known == reason) {
                    Some((_, sum)) => *sum += count,
                    None => reasons.push((reason.clone(), *count)),
                }
            }
        }
        let all: u64 = reasons.iter().map(|(_, count)| count).sum();
        let why = match &*reasons {
            [] => return None,
            [(reason, _)] => reason.clone(),
            _ => {
                let each = reasons.iter().map(|(reason, count)| format!("{} × {reason}", grouped(*count)));
                each.collect::<Vec<_>>().join(", ")
            }
        };
        Some(format!("{} request{} repeated ({why})", grouped(all), plural(all)))
    }

    fn last(&self) -> Option<AttemptEnd> {
        let answers = self.all_counters().into_iter().filter_map(|counters| lock(&counters.last).clone());
        answers.max_by_key(|answer| answer.at)
    }

    /// CDF's last answer, or that there is none.
    fn last_words(&self) -> String {
        self.last().map_or_else(|| "CDF has not answered yet".to_owned(), |answer| answer.words)
    }

    /// The message when something outside ends the activity.
    pub fn account(&self) -> Account {
        self.account_at(Instant::now())
    }

    fn account_at(&self, now: Instant) -> Account {
        let mut detail = Vec::new();
        let requests: u64 = self.all_counters().iter().map(|counters| counters.get(|t| &t.requests)).sum();
        let time = duration(now.saturating_duration_since(self.since));
        let repeats = self.repeats().map(|repeats| format!(", {repeats}")).unwrap_or_default();
        let done = match self.what {
            What::Delivery => {
                let resources = lock(&self.resources).clone();
                if resources.len() > NAMED {
                    let each =
                        resources.iter().filter(|counters| counters.of().acknowledged > 0).map(|counters| {
                            let RowCount { all, acknowledged } = counters.of();
                            format!("{acknowledged} of {all} {}", counters.name)
                        });
                    let each: Vec<String> = each.collect();
                    if !each.is_empty() {
                        detail.push(format!("CDF had accepted, and keeps: {}.", each.join(", ")));
                    }
                }
                detail.push(self.after_running_again(&resources));
                self.delivered(&resources)
            }
            What::Read => match self.own.of().all {
                0 => format!("no {} had been read", self.own.name),
                rows => format!("{rows} {} had been read", self.own.name),
            },
            What::Question => format!("CDF was being asked {}", self.own.name),
        };
        detail.push(format!("{requests} request{} had been made in {time}{repeats}.", plural(requests)));
        let words = self.last_words();
        let shown = shortened(&words, LONGEST_ANSWER);
        if shown != words {
            detail.push(format!("{}{}.", words[..1].to_uppercase(), &words[1..]));
        }
        Account { message: format!("{done}; {shown}"), detail }
    }

    /// The message when its time has passed. The error itself tells what was accepted of a delivery.
    pub fn out_of_time(&self) -> String {
        match self.what {
            What::Delivery => shortened(&self.last_words(), LONGEST_ANSWER),
            What::Read | What::Question => self.account().message,
        }
    }

    /// What CDF had accepted, and may have accepted besides.
    fn delivered(&self, resources: &[Arc<Counters>]) -> String {
        let nothing = resources.iter().all(|counters| counters.of().acknowledged == 0);
        let unsure = resources.iter().map(|counters| counters.get(|t| &t.unsure)).sum::<u64>();
        let verb = if nothing && unsure > 0 { "acknowledged" } else { "accepted" };
        let rows = self.rows_of(|number| if number == 0 { "none".into() } else { number.to_string() });
        let accepted = format!("CDF had {verb} {rows}");
        let more = if nothing { "" } else { " more" };
        match unsure {
            0 => accepted,
            1 => format!("{accepted}, and may have accepted 1{more} that was under way"),
            unsure => format!("{accepted}, and may have accepted up to {unsure}{more} that were under way"),
        }
    }

    /// What running the same load again would do.
    fn after_running_again(&self, resources: &[Arc<Counters>]) -> String {
        match resources.iter().map(|counters| counters.get(|t| &t.blind)).sum::<u64>() {
            0 => "Running the same load again ends in the same state.".to_owned(),
            blind => {
                format!("Running the same load again creates {blind} rows without external_id once more.")
            }
        }
    }

    /// A flush in one line of the log; `ended` is how.
    pub fn log_line(&self, ended: &str) -> String {
        self.log_line_at(Instant::now(), ended)
    }

    fn log_line_at(&self, now: Instant, ended: &str) -> String {
        let all_counters = self.all_counters();
        let sum = |counter: fn(&Counters) -> u64| {
            all_counters.iter().map(|counters| counter(counters)).sum::<u64>()
        };
        let requests = sum(|counters| counters.get(|t| &t.requests));
        let (sent, waited) = {
            let mut network = lock(&self.network);
            network.take_time(now);
            (network.sent, network.waited)
        };
        let each: Vec<String> = lock(&self.resources)
            .iter()
            .map(|counters| {
                let RowCount { all, acknowledged } = counters.of();
                format!("{acknowledged} of {all} {}", counters.name)
            })
            .collect();
        format!(
            "delivery to CDF took {} ms: acknowledged {}; {requests} request{}, {}; {} bytes sent; {} ms with requests under \
             way, {} ms waiting for the next attempt or a token; {ended}",
            milliseconds(now.saturating_duration_since(self.since)),
            each.join(", "),
            plural(requests),
            self.repeats().unwrap_or_else(|| "none repeated".into()),
            sum(|counters| counters.get(|t| &t.bytes_sent)),
            milliseconds(sent),
            milliseconds(waited),
        )
    }
}

impl Network {
    /// What the activity waits for, if no request is under way.
    fn waits(&self, now: Instant) -> Option<String> {
        if self.sending > 0 {
            return None;
        }
        let next = self.pauses.iter().min_by_key(|pause| pause.until);
        let pause = next.map(|Pause { until, why, .. }| {
            format!("{} until the next attempt ({why})", duration(until.saturating_duration_since(now)))
        });
        match (self.waiting_for_token > 0, pause) {
            (true, None) => Some("waiting for a token from the identity provider".into()),
            (true, Some(pause)) => Some(format!("waiting for a token, {pause}")),
            (false, Some(pause)) => Some(format!("waiting {pause}")),
            (false, None) => None,
        }
    }
}

fn plural(count: u64) -> &'static str {
    if count == 1 {
        ""
    } else {
        "s"
    }
}

/// `a`, `a and b`, `a, b and c`.
fn listed(parts: &[String]) -> String {
    match parts {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} and {last}", first.join(", ")),
    }
}

/// `1,200,000`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration with no more digits than useful.
fn duration(time: Duration) -> String {
    match time.as_secs() {
        0..10 => format!("{:.1} s", (time.as_secs_f64() * 10.0).floor() / 10.0),
        seconds => whole_seconds(seconds),
    }
}

/// A forecast, which is never zero.
fn duration_rounded_up(time: Duration) -> String {
    let seconds = time.as_secs_f64().ceil().max(1.0) as u64;
    match seconds {
        0..120 => whole_seconds(seconds),
        120..7200 => format!("{} min", seconds.div_ceil(60)),
        _ => format!("{} h", seconds.div_ceil(3600)),
    }
}

fn whole_seconds(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
    }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.3}", time.as_secs_f64() * 1000.0)
}

/// At most so many characters of a text, in one line.
fn shortened(text: &str, longest: usize) -> String {
    shorten(&one_line(text), longest)
}

#[cfg(test)]
mod tests {
    use super::super::errand::Errand;
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_delivery_tells_what_is_done_and_what_is_left() {
        let activity = Activity::delivery();
        let points = activity.resource("datapoints".into(), 5_000_000);
        let after = |seconds: u32| activity.progress_at(activity.since + seconds * SECOND);
        assert_eq!(after(0), "delivered 0 of 5,000,000 datapoints in 0.0 s");
        let errand = Errand::for_rows(&activity, &points, 1_200_000, false);
        let attempt = errand.attempt(10);
        for _ in 0..3 {
            errand.repeats("429 Too Many Requests");
        }
        assert_eq!(
            after(12),
            "delivered 0 of 5,000,000 datapoints in 12 s, 3 requests repeated (429 Too Many Requests)"
        );
        errand.acknowledge(1_200_000);
        assert_eq!(
            after(12),
            "delivered 1,200,000 of 5,000,000 datapoints in 12 s, 3 requests repeated (429 Too Many Requests), about 38 s left"
        );
        errand.repeats("connection lost");
        drop(attempt);
        let text = after(130);
        assert!(
            text.contains(
                "in 2 min 10 s, 4 requests repeated (3 × 429 Too Many Requests, 1 × connection lost)"
            ),
            "{text}"
        );
    }

    #[test]
    fn no_time_is_forecast_for_what_has_not_begun() {
        let activity = Activity::delivery();
        let series = activity.resource("timeseries".into(), 10);
        let points = activity.resource("datapoints".into(), 100);
        let after = |seconds: u32| activity.progress_at(activity.since + seconds * SECOND);
        let errand = Errand::for_rows(&activity, &series, 10, false);
        drop(errand.attempt(1));
        errand.acknowledge(10);
        assert_eq!(after(10), "delivered 10 of 10 timeseries and 0 of 100 datapoints in 10 s");
        let errand = Errand::for_rows(&activity, &points, 100, false);
        drop(errand.attempt(1));
        errand.acknowledge(50);
        assert!(after(10).contains("left"), "{}", after(10));
        errand.acknowledge(50);
        assert!(!after(10).contains("left"), "{}", after(10));
    }

    #[test]
    fn many_resources_are_summed_up() {
        let activity = Activity::delivery();
        for at in 0..5 {
            let counters = activity.resource(format!("raw_rows (db.t{at})"), 1000);
            Errand::for_rows(&activity, &counters, 1000, false).acknowledge(at * 100);
        }
        let text = activity.progress_at(activity.since + SECOND);
        assert_eq!(text, "delivered 1,000 of 5,000 rows of 5 resources in 1.0 s");
        let Account { message, detail } = activity.account();
        assert!(message.starts_with("CDF had accepted 1000 of 5000 rows of 5 resources; "), "{message}");
        assert!(detail[0].contains("400 of 1000 raw_rows (db.t4)"), "{detail:?}");
        assert!(!detail[0].contains("db.t0"), "{detail:?}");
    }

    #[test]
    fn waits_are_told_as_what_they_are() {
        let activity = Activity::delivery();
        let events = activity.resource("events".into(), 1);
        let errand = Errand::for_rows(&activity, &events, 1, false);
        let now = || activity.progress_at(Instant::now());
        let token = errand.waits_for_token();
        assert!(now().ends_with("s, waiting for a token from the identity provider"), "{}", now());
        let pause = errand.pauses(300 * SECOND, "503 Service Unavailable of the identity provider".into());
        let text = now();
        let pauses = "s until the next attempt (503 Service Unavailable of the identity provider)";
        assert!(text.contains("waiting for a token, 4 min 59 ") && text.ends_with(pauses), "{text}");
        drop(token);
        assert!(now().contains("waiting 4 min 59 s until"), "{}", now());
        let attempt = errand.attempt(1);
        assert!(!now().contains("waiting"), "{}", now());
        drop((attempt, pause));
        assert!(!now().contains("waiting"), "{}", now());
    }

    #[test]
    fn reads_tell_what_they_read() {
        let activity = Activity::reading("events".into());
        let errand = Errand::of(&activity);
        errand.read(1234);
        errand.repeats("no connection");
        let at = activity.since + SECOND;
        assert_eq!(
            activity.progress_at(at),
            "read 1,234 events in 1.0 s, 1 request repeated (no connection)"
        );
        let account = activity.account_at(at);
        assert_eq!(account.message, "1234 events had been read; CDF has not answered yet");
        assert_eq!(
            account.detail,
            ["0 requests had been made in 1.0 s, 1 request repeated (no connection)."]
        );
        let question = Activity::asking("for the definition of view a".into());
        let text = question.progress_at(question.since + 12 * SECOND);
        assert_eq!(text, "asking CDF for the definition of view a, 12 s so far");
    }

    #[test]
    fn unknown_outcomes_are_not_counted_as_nothing() {
        let activity = Activity::delivery();
        let events = activity.resource("events".into(), 3000);
        let (first, second) = (
            Errand::for_rows(&activity, &events, 1000, false),
            Errand::for_rows(&activity, &events, 1000, true),
        );
        let told = || activity.account().message;
        assert!(told().starts_with("CDF had accepted none of 3000 events; CDF has not"), "{}", told());
        first.is_sent();
        assert!(
            told().contains("acknowledged none of 3000 events, and may have accepted up to 1000 that were"),
            "{}",
            told()
        );
        first.acknowledge(400);
        assert!(told().starts_with("CDF had accepted 400 of 3000 events; CDF has not"), "{}", told());
        first.is_sent();
        second.is_sent();
        assert!(told().contains("up to 1600 more"), "{}", told());
        // A refusal says that nothing was written, unless an attempt before was not answered.
        first.is_not_acknowledged(false);
        assert!(told().contains("up to 1000 more"), "{}", told());
        second.is_not_acknowledged(true);
        second.is_sent();
        second.is_not_acknowledged(false);
        assert!(told().contains("up to 1000 more"), "{}", told());
        second.acknowledge(1000);
        assert!(!told().contains("may have"), "{}", told());
        assert!(activity.account().detail[0].contains("creates 1000 rows without external_id once more"));
    }

    #[test]
    fn the_last_answer_is_told_in_full_only_in_the_detail() {
        let activity = Activity::delivery();
        let events = activity.resource("events".into(), 1);
        let errand = Errand::for_rows(&activity, &events, 1, false);
        Errand::of(&activity).ended("the identity provider's last answer was 503".into());
        errand.ended(format!("CDF's last answer to POST /events was 400: {}\n!", "long ".repeat(100)));
        let Account { message, detail } = activity.account();
        assert!(message.contains("; CDF's last answer to POST /events was 400: long long"), "{message}");
        assert!(message.len() < 300 && !message.contains('\n'), "{message}");
        assert!(detail.last().unwrap().ends_with("!."), "{detail:?}");
    }

    #[test]
    fn the_log_line_adds_everything_up() {
        let activity = Activity::delivery();
        let (events, assets) = (activity.resource("events".into(), 5), activity.resource("assets".into(), 2));
        let errand = Errand::for_rows(&activity, &events, 5, false);
        drop(errand.attempt(1000));
        errand.acknowledge(5);
        drop(Errand::for_rows(&activity, &assets, 2, false).attempt(234));
        drop(Errand::of(&activity).attempt(0));
        let line = activity.log_line_at(activity.since + 2 * SECOND, "ended with SQLSTATE 57014");
        let begin = "delivery to CDF took 2000.000 ms: acknowledged 5 of 5 events, 0 of 2 assets; 3 requests, none repeated; \
                     1234 bytes sent; ";
        assert!(line.starts_with(begin), "{line}");
        assert!(line.ends_with("; ended with SQLSTATE 57014"), "{line}");
    }

    #[test]
    fn time_is_told_by_what_it_was_spent_on() {
        let start = Instant::now();
        let mut network = Network {
            sending: 1,
            waiting_for_token: 0,
            pauses: Vec::new(),
            numbered: 0,
            changed: start,
            sent: Duration::ZERO,
            waited: Duration::ZERO,
        };
        network.take_time(start + SECOND);
        (network.sending, network.waiting_for_token) = (0, 1);
        network.take_time(start + 3 * SECOND);
        network.waiting_for_token = 0;
        network.take_time(start + 10 * SECOND);
        assert_eq!((network.sent, network.waited), (SECOND, 2 * SECOND));
    }

    #[test]
    fn numbers_and_times_are_easy_to_read() {
        assert_eq!([0, 999, 1000, 1_200_000].map(grouped), ["0", "999", "1,000", "1,200,000"]);
        assert_eq!(
            [0.04, 9.99, 10.9, 119.0, 120.0, 7200.0].map(|s| duration(Duration::from_secs_f64(s))),
            ["0.0 s", "9.9 s", "10 s", "119 s", "2 min 0 s", "2 h 0 min"]
        );
        assert_eq!(
            [0.0, 37.2, 121.0, 9000.0].map(|s| duration_rounded_up(Duration::from_secs_f64(s))),
            ["1 s", "38 s", "3 min", "3 h"]
        );
    }
}
