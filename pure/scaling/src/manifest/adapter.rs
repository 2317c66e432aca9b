//! The rules of prometheus-adapter: which series become metrics of pods, objects and the outside, and by which query.
//!
//! Format: prometheus-adapter's documentation, "Metrics Discovery and Presentation Configuration". Its templates are Go's with `<<` and `>>`; here they are
//! `.Series`, `.LabelMatchers`, `.GroupBy`, and in a resource's template `.Group` and `.Resource`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use regex::Regex;
use saphyr::{LoadableYamlNode as _, MarkedYaml};

use super::place::{Notes, Place, Problem};

/// The key of the adapter's ConfigMap that holds the rules.
pub const KEY: &str = "config.yaml";
/// A longer text is refused.
const MAX_BYTES: usize = 1 << 20;

/// The rules of one configuration.
#[derive(Debug, Clone, Default)]
pub struct Adapter {
    /// Metrics of pods and of objects.
    pub rules: Vec<Rule>,
    /// Metrics from outside.
    pub external: Vec<Rule>,
}

/// One rule.
#[derive(Debug, Clone)]
pub struct Rule {
    series_query: String,
    filters: Vec<(Regex, bool)>,
    /// Resources by the label that names one.
    overrides: BTreeMap<String, String>,
    template: Option<String>,
    is_namespaced: bool,
    matches: Regex,
    becomes: String,
    metrics_query: String,
}

/// A condition on a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelMatch {
    /// The label.
    pub label: String,
    /// `=`, `!=`, `=~` or `!~`.
    pub operator: &'static str,
    /// The value or the regular expression.
    pub value: String,
}

impl LabelMatch {
    /// One of these values.
    pub fn one_of<'a>(label: &str, values: impl IntoIterator<Item = &'a str>, is_not: bool) -> Self {
        let values: Vec<&str> = values.into_iter().collect();
        let label = label.to_owned();
        if let [value] = values.as_slice() {
            return Self { label, operator: if is_not { "!=" } else { "=" }, value: (*value).to_owned() };
        }
        let any: Vec<String> = values.iter().map(|value| regex::escape(value)).collect();
        Self { label, operator: if is_not { "!~" } else { "=~" }, value: any.join("|") }
    }
}

/// Whether a text has the adapter's rules, by its members.
pub fn is_adapter(text: &str) -> bool {
    let is_list = |line: &str| ["rules:", "externalRules:", "resourceRules:"].iter().any(|name| line.starts_with(name));
    text.contains("seriesQuery") && text.lines().any(is_list)
}

impl Adapter {
    /// Reads a configuration.
    ///
    /// # Errors
    /// Every problem, with its line and path.
    pub fn read(file: &str, text: &str) -> Result<Self, Vec<Problem>> {
        let whole = |line, message: String| vec![Problem { file: file.to_owned(), line, path: String::new(), message }];
        if text.len() > MAX_BYTES {
            return Err(whole(1, format!("has {} bytes; at most {MAX_BYTES} are read", text.len())));
        }
        let documents: Vec<MarkedYaml<'_>> = MarkedYaml::load_from_str(text)
            .map_err(|error| whole(error.marker().line(), format!("is no YAML: {}", error.info())))?;
        let Some(document) = documents.first() else { return Ok(Self::default()) };
        let notes = Notes { file: file.to_owned(), problems: Default::default() };
        let root = Place::root(document, &notes);
        let rules = |name: &str| -> Vec<Rule> {
            root.get(name).map(|list| list.items().iter().filter_map(Rule::read).collect()).unwrap_or_default()
        };
        let adapter = Self { rules: rules("rules"), external: rules("externalRules") };
        let problems = notes.problems.into_inner();
        if problems.is_empty() { Ok(adapter) } else { Err(problems) }
    }
}

fn pattern(place: &Place<'_>) -> Option<Regex> {
    let text = place.text()?;
    Regex::new(&text).map_err(|error| place.note(format!("is no regular expression: {error}"))).ok()
}

/// What a template may name.
fn check_template(place: &Place<'_>, text: &str, known: &[&str]) {
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("<<") {
        let Some((inside, after)) = after.split_once(">>") else {
            place.note("a template that begins with << must end with >>");
            return;
        };
        if !known.contains(&inside.trim()) {
            place.note(format!("<<{inside}>> is not supported here; these are: {}", known.join(", ")));
        }
        rest = after;
    }
}

fn render(template: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("<<") {
        out.push_str(before);
        let Some((inside, after)) = after.split_once(">>") else { break };
        out.push_str(values.iter().find(|(name, _)| *name == inside.trim()).map_or("", |(_, value)| value));
        rest = after;
    }
    out.push_str(rest);
    out
}

impl Rule {
    fn read(place: &Place<'_>) -> Option<Self> {
        place.only(&["seriesQuery", "seriesFilters", "resources", "name", "metricsQuery"]);
        let metrics_query_place = place.need("metricsQuery")?;
        let metrics_query = metrics_query_place.text()?;
        check_template(&metrics_query_place, &metrics_query, &[".Series", ".LabelMatchers", ".GroupBy"]);
        let mut filters = Vec::new();
        for filter in place.get("seriesFilters").map(|list| list.items()).unwrap_or_default() {
            for (name, is_not) in [("is", false), ("isNot", true)] {
                if let Some(found) = filter.get(name).and_then(|place| pattern(&place)) {
                    filters.push((found, is_not));
                }
            }
        }
        let resources = place.get("resources");
        let mut overrides = BTreeMap::new();
        for (label, resource) in
            resources.as_ref().and_then(|place| place.get("overrides")).map(|place| place.entries()).unwrap_or_default()
        {
            overrides.insert(label, resource.need("resource")?.text()?);
        }
        let template_place = resources.as_ref().and_then(|place| place.get("template"));
        let template = template_place.as_ref().and_then(Place::text);
        if let (Some(place), Some(text)) = (&template_place, &template) {
            check_template(place, text, &[".Group", ".Resource"]);
        }
        let name = place.get("name");
        let matches = match name.as_ref().and_then(|place| place.get("matches")) {
            Some(place) => pattern(&place)?,
            None => Regex::new(".*").ok()?,
        };
        let whole = if matches.captures_len() > 1 { "$1" } else { "$0" };
        let becomes = name.as_ref().and_then(|place| place.text_at("as")).filter(|text| !text.is_empty());
        Some(Self {
            series_query: place.need("seriesQuery")?.text()?,
            filters,
            overrides,
            template,
            is_namespaced: resources.as_ref().and_then(|place| place.flag_at("namespaced")).unwrap_or(true),
            becomes: becomes.unwrap_or_else(|| whole.to_owned()),
            matches,
            metrics_query,
        })
    }

    /// PromQL that names the series of the last minutes, one sample with `__name__` each.
    pub fn discovery(&self) -> String {
        format!("count by (__name__) (last_over_time({}[10m]))", self.series_query.trim())
    }

    /// The metric's name that a series becomes; `None` where this rule does not take it.
    pub fn name_of(&self, series: &str) -> Option<String> {
        if self.filters.iter().any(|(filter, is_not)| filter.is_match(series) == *is_not) {
            return None;
        }
        let captures = self.matches.captures(series)?;
        let mut name = String::new();
        captures.expand(&self.becomes, &mut name);
        Some(name)
    }

    /// The label that names a resource: `pod`, `namespace`, `deployment` …
    pub fn label_of(&self, resource: &str) -> Option<String> {
        let is_it =
            |found: &str| found.eq_ignore_ascii_case(resource) || found.eq_ignore_ascii_case(&format!("{resource}s"));
        if let Some((label, _)) = self.overrides.iter().find(|(_, found)| is_it(found)) {
            return Some(label.clone());
        }
        let template = self.template.as_ref()?;
        Some(render(template, &[(".Group", ""), (".Resource", resource)]))
    }

    /// The label of the namespace, where the metric belongs to one.
    pub fn namespace_label(&self) -> Option<String> {
        if self.is_namespaced { self.label_of("namespace") } else { None }
    }

    /// The query of one metric.
    pub fn query(&self, series: &str, matches: &[LabelMatch], group_by: &str) -> String {
        let mut conditions = String::new();
        for found in matches {
            let comma = if conditions.is_empty() { "" } else { "," };
            // Writing to a text cannot fail.
            let _ = write!(conditions, "{comma}{}{}{:?}", found.label, found.operator, found.value);
        }
        render(&self.metrics_query, &[(".Series", series), (".LabelMatchers", &conditions), (".GroupBy", group_by)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published() -> Adapter {
        let text = include_str!("../../tests/manifests/neurolake/adapter-config.yaml");
        let (_, config) = text.split_once("config.yaml: |\n").expect("the rules");
        let config: String =
            config.lines().map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line))).collect();
        assert!(is_adapter(&config));
        Adapter::read("config.yaml", &config).expect("rules")
    }

    #[test]
    fn a_published_rule_gives_the_query_of_pods() {
        let adapter = published();
        let rule = &adapter.rules[0];
        assert_eq!(
            rule.discovery(),
            "count by (__name__) (last_over_time(http_requests_total{namespace=\"neurolake\",pod!=\"\"}[10m]))"
        );
        assert_eq!(rule.name_of("http_requests_total").as_deref(), Some("http_requests_per_second"));
        assert_eq!(rule.name_of("http_requests"), None);
        let (namespace, pod) = (rule.namespace_label().expect("a label"), rule.label_of("pod").expect("a label"));
        let matches =
            [LabelMatch::one_of(&namespace, ["neurolake"], false), LabelMatch::one_of(&pod, ["api-1", "api-2"], false)];
        assert_eq!(
            rule.query("http_requests_total", &matches, &pod),
            r#"sum(rate(http_requests_total{namespace="neurolake",pod=~"api\\-1|api\\-2"}[2m])) by (pod)"#
        );
    }

    #[test]
    fn what_a_template_cannot_say_here_is_told_with_its_place() {
        let text = "rules:\n- seriesQuery: x\n  metricsQuery: 'sum(<<.Series>>) by (<<index .LabelValuesByName \"a\">>)'\n- seriesQuery: y\n  metricsQuery: z\n  name: {matches: '('}\n";
        let problems = Adapter::read("c", text).expect_err("two");
        assert_eq!(
            problems.iter().map(|problem| problem.path.as_str()).collect::<Vec<_>>(),
            ["rules[0].metricsQuery", "rules[1].name.matches"]
        );
    }

    #[test]
    fn names_and_labels_have_defaults() {
        let text = "externalRules:\n- seriesQuery: '{__name__=~\"^queue_.*\"}'\n  seriesFilters: [{isNot: _bucket$}]\n  resources: {template: 'kube_<<.Resource>>'}\n  metricsQuery: sum(<<.Series>>{<<.LabelMatchers>>})\n";
        let adapter = Adapter::read("c", text).expect("rules");
        let rule = &adapter.external[0];
        assert_eq!(
            (rule.name_of("queue_depth").as_deref(), rule.name_of("queue_x_bucket")),
            (Some("queue_depth"), None)
        );
        assert_eq!(rule.namespace_label().as_deref(), Some("kube_namespace"));
    }
}
