import { StrictMode, useState } from "react";
import { createRoot } from "react-dom/client";
import { useRemover } from "u2net-remover/react";

function App() {
  const { remover, error } = useRemover();
  const [cutout, setCutout] = useState<string>();
  const show = async (file: File) => setCutout(URL.createObjectURL((await remover!.cutout(file)).image));
  if (error) return <p role="alert">{error.message}</p>;
  return (
    <label>
      Photograph <input type="file" disabled={!remover} onChange={(event) => event.target.files?.[0] && void show(event.target.files[0])} />
      {cutout && <img src={cutout} alt="Without its background" />}
    </label>
  );
}

createRoot(document.getElementById("root")!).render(<StrictMode><App /></StrictMode>);
