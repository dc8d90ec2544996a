{{- /*
The sidecar's container: an entry for the pod's initContainers, best the first, since init containers after it can use it too. restartPolicy Always makes
it a native sidecar: it starts before the application, and is stopped after it. The injection policy and deploy/kubernetes are made from this template.
*/ -}}

{{- define "outrigger-sidecar.container" -}}
{{- $s := index .Values "outrigger-sidecar" -}}
name: {{ include "outrigger-sidecar.containerName" . }}
image: {{ include "outrigger-sidecar.image" . | quote }}
imagePullPolicy: {{ $s.image.pullPolicy }}
restartPolicy: Always
args: ["serve"]
ports:
  - name: outrigger-admin
    containerPort: {{ $s.admin.port }}
    protocol: TCP
env:
  {{- include "outrigger-sidecar.environment" . | nindent 2 }}
{{- if or $s.extraEnvVarsCM $s.extraEnvVarsSecret }}
envFrom:
  {{- with $s.extraEnvVarsCM }}
  - configMapRef:
      name: {{ . | quote }}
  {{- end }}
  {{- with $s.extraEnvVarsSecret }}
  - secretRef:
      name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- with $s.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $s.securityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- range $kind := list "startup" "readiness" "liveness" }}
  {{- $probe := index $s (printf "%sProbe" $kind) }}
  {{- $custom := index $s (printf "custom%sProbe" (title $kind)) }}
  {{- if $custom }}
{{ $kind }}Probe:
    {{- toYaml $custom | nindent 2 }}
  {{- else if $probe.enabled }}
{{ $kind }}Probe:
  httpGet:
    path: /{{ eq $kind "startup" | ternary "startupz" (eq $kind "readiness" | ternary "readyz" "livez") }}
    port: {{ $s.admin.port }}
  periodSeconds: {{ $probe.periodSeconds }}
  timeoutSeconds: {{ $probe.timeoutSeconds }}
  failureThreshold: {{ $probe.failureThreshold }}
  {{- end }}
{{- end }}
lifecycle:
{{- if $s.lifecycleHooks }}
  {{- toYaml $s.lifecycleHooks | nindent 2 }}
{{- else }}
  preStop:
    exec:
      command: ["/outrigger", "drain"]
{{- end }}
volumeMounts:
  {{- include "outrigger-sidecar.appVolumeMounts" . | nindent 2 }}
  {{- if include "outrigger-sidecar.configSources" . }}
  - name: {{ include "outrigger-sidecar.configVolume" . }}
    mountPath: {{ include "outrigger-sidecar.configDirectory" . }}
    readOnly: true
  {{- end }}
  {{- with $s.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}
