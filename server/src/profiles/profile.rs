//! Storage profiles.

use std::collections::HashMap;

use tidemill_types::{CloudProvider, OrganizationId, StorageProfile};

use super::problems::Problems;
use super::reader::{Notes, Place, list_or_chart_section, parse_document};

/// `hosted` was a field of older versions; it is read and means nothing.
const FIELDS: [&str; 11] = [
    "organization_id",
    "instance_num",
    "collector_name",
    "cloud_provider",
    "region",
    "bucket",
    "role",
    "endpoint",
    "use_path_style",
    "insecure_tls",
    "hosted",
];

/// Reads storage profiles: a YAML list, or a chart's values with `storageProfiles.yaml`. `label` names the text in problems.
///
/// # Errors
/// All problems of the text, each with its line and path.
pub fn parse_profiles(label: &str, text: &str) -> Result<Vec<StorageProfile>, Problems> {
    let document = parse_document(label, text)?;
    let notes = Notes::default();
    let places = list_or_chart_section(Place::root(&document, &notes), "storageProfiles", "storage profiles");
    let mut instances = HashMap::new();
    let mut read = Vec::with_capacity(places.len());
    for place in places {
        if let Some(profile) = read_profile(&place, &mut instances) {
            read.push((place, profile));
        }
    }
    note_contradicting_buckets(&read);
    note_ambiguous_instances(&read);
    let profiles = read.into_iter().map(|(_, profile)| profile).collect();
    Problems::unless(label, notes.take(), profiles)
}

/// The profiles in `text` as what is stored of it: itself, unless it is a chart's values, which hold much else, API keys for one.
///
/// # Errors
/// As for [`parse_profiles`].
pub fn storable_profiles(label: &str, text: &str) -> Result<String, Problems> {
    let profiles = parse_profiles(label, text)?;
    let document = parse_document(label, text)?;
    let is_chart = Place::root(&document, &Notes::default()).is_mapping();
    Ok(if is_chart { profiles.iter().map(render).collect() } else { text.to_owned() })
}

/// One item of a YAML list.
fn render(profile: &StorageProfile) -> String {
    // What JSON quotes, YAML reads as it is.
    let quoted = |text: &String| serde_json::Value::from(text.as_str()).to_string();
    let mut fields = vec![
        ("organization_id", profile.organization.to_string()),
        ("instance_num", profile.instance_num.to_string()),
        ("collector_name", quoted(&profile.collector_name)),
        ("cloud_provider", profile.cloud_provider.as_str().to_owned()),
        ("bucket", quoted(&profile.bucket)),
    ];
    for (name, text) in [("region", &profile.region), ("role", &profile.role), ("endpoint", &profile.endpoint)] {
        fields.extend(text.as_ref().map(|text| (name, quoted(text))));
    }
    for (name, flag) in [("use_path_style", profile.use_path_style), ("insecure_tls", profile.insecure_tls)] {
        fields.extend(flag.then(|| (name, flag.to_string())));
    }
    let lines: Vec<String> = fields.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    format!("- {}", lines.join("  "))
}

/// Which profile first took an instance of an organization's collector.
type Instances<'a> = HashMap<(OrganizationId, String, i32), Place<'a>>;

/// `None` only where a problem was noted.
fn read_profile<'a>(place: &Place<'a>, instances: &mut Instances<'a>) -> Option<StorageProfile> {
    if !place.allow_only(&FIELDS) {
        return None;
    }
    let text = |name: &str| place.field(name).map(|field| field.text().map(str::to_owned));
    let flag = |name: &str| place.field(name).map_or(Some(false), |field| field.flag());
    // Every field is read before the first `?`, so that each tells its problems.
    let organization = place.required("organization_id").and_then(|field| field.organization());
    let instance_num = place.field("instance_num").map_or(Some(1), |field| field.positive());
    let collector_name =
        place.field("collector_name").map_or(Some("default".to_owned()), |field| read_component(&field));
    let cloud_provider = place.required("cloud_provider").and_then(|field| read_provider(&field));
    let region = text("region");
    let bucket = place.required("bucket").and_then(|field| read_component(&field));
    let role = text("role");
    let endpoint = place.field("endpoint").map(|field| read_endpoint(&field));
    let use_path_style = flag("use_path_style");
    let insecure_tls = flag("insecure_tls");
    let hosted = flag("hosted");
    if let (Some(organization), Some(collector), Some(instance_num)) = (organization, &collector_name, instance_num) {
        note_repeated_instance(place, instances, (organization, collector.clone(), instance_num));
    }
    hosted?;
    Some(StorageProfile {
        organization: organization?,
        instance_num: instance_num?,
        collector_name: collector_name?,
        cloud_provider: cloud_provider?,
        region: transpose(region)?,
        bucket: bucket?,
        role: transpose(role)?,
        endpoint: transpose(endpoint)?,
        use_path_style: use_path_style?,
        insecure_tls: insecure_tls?,
    })
}

/// An absent field is a value of its own; a bad one is none.
fn transpose(field: Option<Option<String>>) -> Option<Option<String>> {
    match field {
        None => Some(None),
        Some(None) => None,
        Some(Some(text)) => Some(Some(text)),
    }
}

/// A name that is one component of a path.
fn read_component(field: &Place<'_>) -> Option<String> {
    let text = field.text()?;
    if text.contains('/') || text.chars().any(char::is_control) || text == "." || text == ".." {
        field.note(format!("{text:?} is not one component of a path"));
        return None;
    }
    Some(text.to_owned())
}

fn read_provider(field: &Place<'_>) -> Option<CloudProvider> {
    let parsed = field.text()?.parse::<CloudProvider>();
    parsed.map_err(|problem| field.note(problem)).ok()
}

fn read_endpoint(field: &Place<'_>) -> Option<String> {
    let text = field.text()?;
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    if host.is_none_or(|host| host.is_empty() || host.starts_with('/') || host.contains(char::is_whitespace)) {
        field.note(format!("{text:?} is no address, such as https://minio.example:9000"));
        return None;
    }
    Some(text.to_owned())
}

fn note_repeated_instance<'a>(place: &Place<'a>, instances: &mut Instances<'a>, id: (OrganizationId, String, i32)) {
    let Some(earlier) = instances.get(&id) else {
        instances.insert(id, place.clone());
        return;
    };
    let (organization, collector, instance_num) = id;
    let at = place.field("instance_num").unwrap_or_else(|| place.clone());
    at.note(format!(
        "instance_num {instance_num} of organization {organization} and collector {collector:?} is taken by {} (line {})",
        earlier.path(),
        earlier.line(),
    ));
}

/// Segments are placed by organization and instance, whichever collector sent their rows, so an instance has one bucket.
fn note_ambiguous_instances(read: &[(Place<'_>, StorageProfile)]) {
    let mut first = HashMap::new();
    for (place, profile) in read {
        let (earlier_place, earlier): &(&Place<'_>, &StorageProfile) =
            first.entry((profile.organization, profile.instance_num)).or_insert((place, profile));
        // An instance repeated in one collector has been told.
        if profile.bucket == earlier.bucket || profile.collector_name == earlier.collector_name {
            continue;
        }
        let at = place.field("instance_num").unwrap_or_else(|| place.clone());
        at.note(format!(
            "instance_num {} of organization {} is in bucket {:?} here and in bucket {:?} in {} (line {}), for collector {:?}; \
             give the collectors' profiles different instance_nums",
            profile.instance_num,
            profile.organization,
            profile.bucket,
            earlier.bucket,
            earlier_place.path(),
            earlier_place.line(),
            earlier.collector_name,
        ));
    }
}

/// A bucket is opened once, so all profiles must describe it alike.
fn note_contradicting_buckets(read: &[(Place<'_>, StorageProfile)]) {
    let mut first = HashMap::new();
    for (place, profile) in read {
        let (earlier_place, earlier): &(&Place<'_>, &StorageProfile) =
            first.entry(&profile.bucket).or_insert((place, profile));
        let differing: Vec<&str> = [
            ("cloud_provider", profile.cloud_provider != earlier.cloud_provider),
            ("region", profile.region != earlier.region),
            ("role", profile.role != earlier.role),
            ("endpoint", profile.endpoint != earlier.endpoint),
            ("use_path_style", profile.use_path_style != earlier.use_path_style),
            ("insecure_tls", profile.insecure_tls != earlier.insecure_tls),
        ]
        .into_iter()
        .filter_map(|(name, differs)| differs.then_some(name))
        .collect();
        if !differing.is_empty() {
            place.note(format!(
                "bucket {:?} has another {} in {} (line {}); a bucket is opened once, so all profiles describe it alike",
                profile.bucket,
                differing.join(", "),
                earlier_place.path(),
                earlier_place.line(),
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_chart_s_values_only_the_profiles_are_stored() {
        let chart = include_str!("golden/profiles/values-local.yaml");
        let stored = storable_profiles("values.yaml", chart).expect("is valid");
        assert!(chart.contains("my-api-key-1") && !stored.contains("my-api-key-1"), "{stored}");
        assert_eq!(parse_profiles("stored", &stored), parse_profiles("values.yaml", chart));
        let full = include_str!("golden/profiles/full.yaml");
        assert_eq!(storable_profiles("full.yaml", full).as_deref(), Ok(full));
        let profiles = parse_profiles("full.yaml", full).expect("is valid");
        let rendered: String = profiles.iter().map(render).collect();
        assert_eq!(parse_profiles("rendered", &rendered), Ok(profiles));
    }
}
