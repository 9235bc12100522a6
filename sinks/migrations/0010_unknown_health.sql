-- A connector whose first report is not due yet fares neither well nor badly.
ALTER TABLE connector_verdicts DROP CONSTRAINT connector_health_state_check;
ALTER TABLE connector_verdicts ADD CONSTRAINT connector_verdicts_state_check
    CHECK (state IN ('healthy', 'degraded', 'down', 'paused', 'unknown'));
