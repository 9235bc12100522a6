CREATE TABLE events (
    id bigserial PRIMARY KEY,
    entity_id text NOT NULL,
    event_type text NOT NULL,
    headers jsonb NOT NULL,
    created_at timestamptz NOT NULL
);
INSERT INTO events (entity_id, event_type, headers, created_at) VALUES
    ('order-123', 'order.created', '{"customer_id": "c-9"}', '2026-01-02 03:04:00+00'),
    ('order-123', 'payment.completed', '{"amount": "99.99", "currency": "USD", "customer_id": "c-9"}', '2026-01-02 03:04:05+00'),
    ('order-124', 'payment.failed', '{"amount": "12.50", "currency": "EUR"}', '2026-01-02 03:05:00+00'),
    ('order-123', 'payment.refunded', '{"amount": "9.99", "currency": "USD"}', '2026-01-03 10:00:00+05:30'),
    ('order-123', 'payment.refunded', '{"amount": "9.99", "currency": "USD"}', '2026-01-04 10:00:00+05:30'),
    ('order-125', 'payment.completed', '{"amount": 1200, "currency": "JPY"}', '2026-01-02 03:06:00.123456+00'),
    ('order-125', 'payment.disputed', '{"amount": 1200, "currency": "JPY"}', '2026-01-05 00:00:00+00'),
    ('order-126', 'payment.completed', '{"amount": "ten", "currency": "USD"}', '2026-01-02 03:07:00+00'),
    ('order-127', 'payment.completed', '{"currency": "USD"}', '2026-01-02 03:08:00+00'),
    ('order-128', 'payment.completed', '{"amount": 1.005, "currency": "USD"}', '2026-01-02 03:09:00+00');
