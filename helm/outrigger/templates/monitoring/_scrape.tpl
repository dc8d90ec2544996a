{{- define "outrigger.scrape" -}}
{{- range $key := list "interval" "scrapeTimeout" "relabelings" "metricRelabelings" }}
{{- with index $ $key }}
{{ $key }}: {{- if kindIs "string" . }} {{ . }}{{ else }}{{ toYaml . | nindent 2 }}{{ end }}
{{- end }}
{{- end }}
{{- end }}
