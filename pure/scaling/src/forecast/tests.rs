//! Forecasts over series whose future is known.

use super::*;

const MINUTE: i64 = 60_000;

fn policy(method: Method) -> Policy {
    Policy { mode: Mode::On, method, interval_ms: MINUTE, lookahead_ms: 2 * MINUTE, max_error: 0.2, error_window: 10 }
}

/// Feeds one value a minute and returns the floors.
fn run(policy: &Policy, load: impl Fn(i64) -> Option<f64>, minutes: i64) -> Vec<Outcome> {
    let mut outcomes: Vec<Outcome> = Vec::new();
    for minute in 0..minutes {
        let state = outcomes.last().map(|outcome| outcome.state.clone()).unwrap_or_default();
        outcomes.push(step(policy, state, load(minute), None, TimeMs(minute * MINUTE)));
    }
    outcomes
}

#[test]
fn a_line_is_followed_ahead_of_itself() {
    let outcomes = run(&policy(Method::Linear { window_ms: 20 * MINUTE }), |minute| Some(minute as f64), 40);
    // At minute 39 the furthest bucket ahead is 39 + 3.
    assert_eq!(outcomes.last().and_then(|outcome| outcome.floor), Some(42));
}

#[test]
fn last_season_comes_again() {
    let wave = |minute: i64| Some(if minute % 20 < 10 { 2.0 } else { 9.0 });
    for method in [
        Method::SeasonalNaive { season_ms: 20 * MINUTE },
        Method::HoltWintersFitted { season_ms: 20 * MINUTE },
        Method::HoltWinters { season_ms: 20 * MINUTE, parameters: HoltWinters { alpha: 0.2, beta: 0.05, gamma: 0.2 } },
    ] {
        let outcomes = run(&policy(method), wave, 100);
        // Minute 87 is three minutes before the load rises at 90.
        assert_eq!(outcomes[86].floor, Some(2), "{method:?}");
        assert_eq!(outcomes[87].floor, Some(9), "{method:?}");
        assert_eq!(outcomes[99].floor, Some(9), "{method:?}");
    }
}

#[test]
fn a_high_error_turns_it_off_and_a_low_one_on_again() {
    // A line cannot follow jumps; later the load is steady.
    let jumps = |minute: i64| {
        Some(if minute > 80 {
            5.0
        } else if minute % 7 < 3 {
            1.0
        } else {
            30.0
        })
    };
    let outcomes = run(&policy(Method::Linear { window_ms: 6 * MINUTE }), jumps, 120);
    let last_of = |minute: usize| outcomes[minute].reasons[0].code.clone();
    assert_eq!(last_of(70), "ForecastError");
    assert_eq!(outcomes[70].floor, None);
    assert_eq!(last_of(119), "ForecastFloor");
    assert_eq!(outcomes[119].floor, Some(5));
}

#[test]
fn preview_tells_and_does_not_act_and_a_gap_is_no_zero() {
    let with_gap = |minute: i64| (minute % 5 != 0 || minute == 0).then_some(4.0);
    let policy = Policy { mode: Mode::Preview, ..policy(Method::Linear { window_ms: 10 * MINUTE }) };
    let outcomes = run(&policy, with_gap, 30);
    let last = outcomes.last().expect("thirty");
    assert_eq!((last.floor, &*last.reasons[0].code), (None, "ForecastPreview"));
    assert!(last.state.series.values().iter().all(|value| *value == 4.0));
}

#[test]
fn the_series_is_bounded() {
    let outcomes = run(&policy(Method::Linear { window_ms: 10 * MINUTE }), |_| Some(1.0), 500);
    assert!(outcomes.last().expect("some").state.series.len() <= 56);
}
