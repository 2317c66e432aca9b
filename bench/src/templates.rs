//! What the services of the generated shop say: message templates with the kinds of values that fill them.
//!
//! Fifteen services, each with an access line, chatter, and rare trouble. Shares and value kinds were chosen after the logs of
//! real microservices (many repeated shapes, few long tails, identifiers that never repeat). Never random itself.

/// A message shape of one service.
pub struct Template {
    /// Out of 1000 records of its service.
    pub weight: u32,
    /// OTLP severity number.
    pub severity: i32,
    /// Text with `{kind}` holes; see `records::fill`.
    pub text: &'static str,
}

const fn line(weight: u32, severity: i32, text: &'static str) -> Template {
    Template { weight, severity, text }
}

/// The services.
pub const SERVICES: &[&str] = &[
    "frontend",
    "catalog",
    "cart",
    "payment",
    "shipping",
    "search",
    "recommend",
    "account",
    "mailer",
    "inventory",
    "pricing",
    "review",
    "gateway",
    "billing",
    "audit",
];

/// What every service says.
pub const TEMPLATES: &[Template] = &[
    line(330, 9, "{method} {path} {status} {ms}ms {bytes}B client={ip} agent={agent}"),
    line(120, 9, "request {uuid} accepted from {ip} for user {user}"),
    line(90, 5, "SELECT id, name, price FROM {table} WHERE id = {int} took {ms} ms, {small} rows"),
    line(80, 9, "cache hit for key {table}:{int} age {small}s"),
    line(60, 9, "published event order.{verb} id={hex16} partition={small} offset={int}"),
    line(60, 9, "user {user} {verb} item {int} quantity {small}"),
    line(50, 9, "order {hex16} state changed from pending to {verb} in {ms} ms"),
    line(40, 5, "grpc call {table}.{verb} finished with code OK in {ms} ms"),
    line(40, 9, "session {uuid} refreshed, expires in {int} s"),
    line(30, 9, "scheduled job {table}-sync started, {small} items pending"),
    line(
        25,
        9,
        "{{\"event\":\"{verb}\",\"user\":\"{user}\",\"amount\":{int},\"currency\":\"EUR\",\"request\":\"{uuid}\"}}",
    ),
    line(25, 13, "slow query on {table}: {int} ms, plan uses sequential scan"),
    line(15, 13, "retrying {method} {path} after {ms} ms, attempt {small} of 5: upstream timed out"),
    line(12, 13, "queue {table} is {small} messages behind, oldest {int} ms"),
    line(10, 17, "payment of user {user} failed: card declined, code {small}"),
    line(6, 17, "connection reset by peer while reading response header from upstream {ip}:8080"),
    line(
        4,
        17,
        "unhandled exception in {table}.{verb}: java.lang.IllegalStateException: pool {small} exhausted\n\tat shop.{table}.Pool.take(Pool.java:{small})\n\tat shop.{table}.Service.{verb}(Service.java:{int})\n\tat shop.web.Dispatcher.run(Dispatcher.java:88)",
    ),
    line(2, 17, "checksum mismatch in block {hex16}: expected {hex16}, found {hex16}"),
    line(1, 21, "out of memory in worker {small}, restarting"),
];

/// Values of `{method}`, `{path}` … where they come from a list.
pub const LISTS: &[(&str, &[&str])] = &[
    ("method", &["GET", "GET", "GET", "GET", "POST", "POST", "PUT", "DELETE"]),
    (
        "path",
        &[
            "/api/v1/products",
            "/api/v1/cart",
            "/api/v1/checkout",
            "/api/v1/users/me",
            "/api/v1/orders",
            "/healthz",
            "/metrics",
            "/api/v1/search?q=shoes",
            "/api/v1/reviews",
            "/static/app.js",
            "/api/v1/recommendations",
            "/login",
        ],
    ),
    ("status", &["200", "200", "200", "200", "200", "200", "201", "204", "304", "400", "404", "500"]),
    ("agent", &["Mozilla/5.0", "okhttp/4.12", "curl/8.5", "Go-http-client/2.0", "python-requests/2.32"]),
    ("table", &["products", "orders", "users", "sessions", "carts", "payments", "stock", "reviews"]),
    ("verb", &["created", "updated", "shipped", "cancelled", "viewed", "added", "removed", "confirmed"]),
];
